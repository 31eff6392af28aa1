"""The executor's program of one rank of a large plan sends and holds what the planner says."""

from typing import Any

import pytest

import meshwright_ledger
from planner.spec import catalog
from planner.spec.documents import InputError
from planner.spec.layer import MLP, Experts
from planner.spec.layout import Layout, even_counts, make_stages
from planner.spec.ledger import both
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import gpt2_like, llama_like
from tests.executor.kinds import KINDS

WITHIN = 0.03
"""Promised for tracked peaks."""


def plan(model: ModelSpec, text: str, batch: int, dtype: str = "bf16", seq_len: int = 256) -> Plan:
    layout, counts = Layout.parse(text)
    stages = make_stages(layout, counts or even_counts(model.layers, layout.pp * layout.vpp))
    work = {"seq_len": seq_len, "global_batch": batch, "dtype": dtype}
    return Plan(
        model=model,
        cluster=catalog.find_cluster("h100-sxm:64"),
        workload=Workload.model_validate(work),
        runtime=catalog.find_runtime("native"),
        layout=layout,
        stages=stages,
    )


def wide_llama(layers: int = 12) -> ModelSpec:
    """Large enough that activations outweigh alignment."""
    return llama_like(
        layers=layers,
        hidden=256,
        heads=16,
        kv_heads=8,
        head_dim=16,
        ffn=512,
        vocab=1001,
        max_positions=256,
    )


def wide_gpt2(layers: int = 12) -> ModelSpec:
    return gpt2_like(
        layers=layers,
        hidden=256,
        heads=16,
        kv_heads=16,
        head_dim=16,
        ffn=1024,
        vocab=1001,
        max_positions=256,
    )


def shallow_llama() -> ModelSpec:
    """As wide, for plans without stages."""
    return wide_llama(layers=4)


def shallow_gpt2() -> ModelSpec:
    return wide_gpt2(layers=4)


def large_head() -> ModelSpec:
    """Its gradient outweighs the logits of a microbatch."""
    return llama_like(hidden=512, head_dim=64, ffn=512, vocab=9001, max_positions=256)


def tied_head() -> ModelSpec:
    """A matrix that both ends share, as large as all layers."""
    return gpt2_like(hidden=512, head_dim=128, ffn=2048, vocab=24001, max_positions=256)


def wide_neox() -> ModelSpec:
    """Attention and MLP side by side: one gradient of both outputs."""
    spec = wide_llama()
    kind = spec.layer.replace(parallel=True)
    return spec.replace(stacks=(spec.main.replace(kinds=(kind,)),))


def wide_t5() -> ModelSpec:
    """Attention with a bias stores its scores on a CPU, in fp32, four times a microbatch here."""
    own = {"heads": 8, "kv_heads": 8, "head_dim": 32}
    biased = {**own, "relative_buckets": 8}
    mlp = {"ffn": 512, "gated": False, "activation": "relu"}
    table = {"vocab": 1001, "max_positions": 256}
    encoder = {"attention": {**biased, "causal": False}, "feed_forward": mlp}
    reads = {"cross_attention": {**own, "causal": False}}
    decoder = {"attention": biased, "feed_forward": mlp, **reads}
    stacks = (
        {"name": "encoder", "embedding": table, "kinds": [encoder]},
        {"name": "decoder", "embedding": {**table, "shared_table": True}, "kinds": [decoder]},
    )
    values = KINDS["t5"].model_dump() | {"hidden": 256, "head": {"classes": 1001}}
    return ModelSpec.model_validate(
        values | {"stacks": [{**each, "order": [0] * 4} for each in stacks]}
    )


Case = tuple[Any, str, int, str, tuple[int, ...]]

CASES: list[Case] = [
    (wide_llama, "dp=16 tp=4 pp=8 micro_batch=2 zero=1", 128, "bf16", (3, 511)),
    (wide_gpt2, "dp=8 tp=1 pp=3 micro_batch=4 zero=1 recompute=full", 128, "fp32", (0, 11)),
    (
        wide_llama,
        "dp=4 tp=8 pp=4 vpp=3 micro_batch=2 zero=1 schedule=interleaved",
        32,
        "bf16",
        (0, 127),
    ),
    (wide_gpt2, "dp=4 pp=3 vpp=2 micro_batch=2 schedule=zbv", 32, "bf16", (0, 11)),
    (shallow_llama, "dp=2 cp=2 tp=2 pp=2 micro_batch=2 zero=1 cp_style=ring", 16, "bf16", (5,)),
    (shallow_llama, "dp=4 cp=2 tp=2 micro_batch=2 cp_style=all_gather", 16, "bf16", (0,)),
    (shallow_llama, "dp=16 micro_batch=2 zero=3", 64, "bf16", (5,)),
    (shallow_gpt2, "dp=8 pp=2 micro_batch=2 zero=3 shard=4 schedule=gpipe", 64, "fp32", (15,)),
    (shallow_llama, "dp=8 micro_batch=2 zero=1 shard=4", 32, "fp32", (6,)),
    (wide_gpt2, "dp=2 pp=2 micro_batch=4 zero=3 recompute=full schedule=zb-h1", 32, "fp32", (0, 3)),
]
MORE: list[Case] = [
    (wide_gpt2, "dp=64 tp=2 pp=4 micro_batch=2 zero=0 recompute=selective", 512, "bf16", (1, 511)),
    (wide_llama, "dp=512 micro_batch=2 zero=1", 1024, "fp32", (5,)),
    (wide_llama, "dp=2 cp=4 tp=2 micro_batch=2 cp_style=all_to_all", 16, "bf16", (15,)),
    (wide_gpt2, "dp=4 tp=2 pp=2 micro_batch=2 zero=2", 64, "bf16", (1, 14)),
    (wide_t5, "dp=4 micro_batch=4 zero=1 recompute=full", 64, "fp32", (3,)),
    (wide_t5, "dp=4 tp=4 micro_batch=2", 64, "bf16", (9,)),
    (large_head, "dp=4 pp=2 micro_batch=1 zero=2", 16, "fp32", (0, 7)),
    (large_head, "dp=4 pp=2 micro_batch=1 zero=3", 16, "bf16", (7,)),
    (tied_head, "dp=4 micro_batch=4 zero=3 recompute=full", 32, "bf16", (2,)),
    (tied_head, "dp=4 micro_batch=4 zero=2", 32, "fp32", (2,)),
    (wide_llama, "dp=2 tp=2 pp=4 vpp=2 micro_batch=2 zero=1 schedule=zbv", 32, "bf16", (0, 8, 15)),
    (
        wide_llama,
        "dp=2 cp=4 pp=2 micro_batch=4 zero=1 recompute=selective schedule=zb-h1",
        48,
        "fp32",
        (8,),
    ),
    (
        wide_neox,
        "dp=2 cp=4 pp=2 micro_batch=8 recompute=selective schedule=zb-h1",
        48,
        "fp32",
        (8,),
    ),
]


def also_slow(cases: list[Any], more: list[Any]) -> list[Any]:
    return [*cases, *(pytest.param(*case, marks=pytest.mark.slow) for case in more)]


@pytest.mark.parametrize(("model", "layout", "batch", "dtype", "ranks"), also_slow(CASES, MORE))
def test_rank(model: Any, layout: str, batch: int, dtype: str, ranks: tuple[int, ...]) -> None:
    planned = plan(model(), layout, batch, dtype)
    for rank in ranks:
        predicted, recorded = meshwright_ledger.ledgers(planned, rank)
        assert [line for line in both(predicted, recorded) if line[1] != line[2]] == []
        assert abs(predicted.peak_bytes / recorded.peak_bytes - 1) <= WITHIN
        assert all(message.seconds is not None for message in predicted.messages)


def mixture() -> ModelSpec:
    spec, mlp = wide_llama(), MLP(ffn=128, gated=True, activation="silu")
    kind = spec.layer.replace(feed_forward=Experts(experts=8, per_token=2, expert=mlp, shared=mlp))
    return spec.replace(stacks=(spec.main.replace(kinds=(spec.layer, kind), order=(0, 1) * 2),))


KINDS_OF_MODELS: list[tuple[Any, str]] = [
    (shallow_llama, "cp=2 tp=2 pp=2 dp=2 micro_batch=2 zero=3 recompute=full cp_style=all_to_all"),
    (lambda: KINDS["t5"], "tp=2 dp=2 micro_batch=2 zero=1"),
    (lambda: KINDS["bert-masked"], "tp=2 pp=2 dp=2 micro_batch=2 zero=2"),
    (lambda: KINDS["gpt2-sequences"], "tp=2 dp=2 micro_batch=2 zero=1"),
    (lambda: KINDS["neox"], "tp=2 dp=2 micro_batch=2 zero=1 recompute=full"),
]
MORE_KINDS: list[tuple[Any, str]] = [
    (lambda: KINDS["bert-masked"], "tp=2 pp=2 dp=2 micro_batch=2 zero=0"),
    (lambda: KINDS["bert-masked"], "tp=2 dp=2 micro_batch=2 zero=3"),
    (lambda: KINDS["bert-sequences"], "tp=4 dp=2 micro_batch=1 zero=3 recompute=full"),
    (wide_llama, "cp=4 dp=2 micro_batch=2 zero=1"),
    (lambda: KINDS["bart"], "tp=4 dp=2 micro_batch=1 zero=1 recompute=full"),
]


@pytest.mark.parametrize(("model", "layout"), also_slow(KINDS_OF_MODELS, MORE_KINDS))
def test_messages_of_other_kinds(model: Any, layout: str) -> None:
    """Sequences over ranks, encoders; the last rank has the fewest rows of a table."""
    planned = plan(model(), layout, 16, seq_len=64)
    predicted, recorded = meshwright_ledger.ledgers(planned, planned.layout.devices - 1)
    assert [line for line in both(predicted, recorded) if line[1] != line[2]] == []


SERVED: list[tuple[Any, str, str, tuple[int, ...]]] = [
    (shallow_gpt2, "dp=4 tp=2 pp=2 micro_batch=2", "bf16", (0, 13)),
    (lambda: KINDS["bert-tokens"], "dp=4 tp=2 micro_batch=1", "fp32", (5,)),
    (wide_t5, "dp=4 tp=2 micro_batch=2", "bf16", (5,)),
]
MORE_SERVED: list[tuple[Any, str, str, tuple[int, ...]]] = [
    (wide_llama, "dp=2 cp=2 tp=4 pp=2 vpp=2 micro_batch=2 schedule=zbv", "fp32", (0, 9, 31)),
    (wide_llama, "dp=64 tp=2 micro_batch=1", "bf16", (0, 100)),
    (wide_t5, "dp=4 micro_batch=4 recompute=selective", "bf16", (0, 3)),
    (lambda: KINDS["t5"], "dp=4 tp=2 micro_batch=1", "bf16", (0, 5)),
    (lambda: KINDS["gpt2-sequences"], "dp=4 tp=4 micro_batch=1", "bf16", (0, 5)),
    (gpt2_like, "dp=4 tp=4 pp=2 micro_batch=1", "fp32", (3, 31)),
]


@pytest.mark.parametrize(("model", "layout", "dtype", "ranks"), also_slow(SERVED, MORE_SERVED))
def test_parameter_servers(model: Any, layout: str, dtype: str, ranks: tuple[int, ...]) -> None:
    """Every server's share, and so every message, has a size of its own."""
    spec = model()
    small = spec.hidden < 100
    text, seq_len = f"{layout} sync=parameter_server", 16 if small else 256
    degrees = Layout.parse(text)[0]
    batch = 4 * degrees.dp * degrees.micro_batch
    planned = plan(spec, text, batch, dtype, seq_len=seq_len)
    for rank in ranks:
        predicted, recorded = meshwright_ledger.ledgers(planned, rank)
        assert [line for line in both(predicted, recorded) if line[1] != line[2]] == []
        assert small or abs(predicted.peak_bytes / recorded.peak_bytes - 1) <= WITHIN


MIXTURES = [
    ("tp=2 dp=4 ep=4 micro_batch=2 zero=2", 16, 7),
    ("tp=2 pp=2 dp=4 ep=2 etp=2 micro_batch=2 zero=1 recompute=full", 16, 15),
]
MORE_MIXTURES = [
    ("dp=2 micro_batch=2", 16, 1),
    ("dp=8 ep=4 micro_batch=2 zero=3", 16, 7),
    ("tp=2 dp=2 ep=4 micro_batch=8 recompute=full", 32, 3),
    ("pp=4 dp=2 ep=2 micro_batch=4 zero=1", 32, 3),
    ("pp=4 dp=2 tp=2 ep=2 etp=2 micro_batch=4 zero=1 recompute=full", 32, 5),
]


@pytest.mark.parametrize(("layout", "batch", "rank"), also_slow(MIXTURES, MORE_MIXTURES))
def test_experts(layout: str, batch: int, rank: int) -> None:
    """ZeRO divides experts over fewer ranks than the rest, and copies of tokens come and go."""
    predicted, recorded = meshwright_ledger.ledgers(plan(mixture(), layout, batch), rank)
    assert [line for line in both(predicted, recorded) if line[1] != line[2]] == []
    assert abs(predicted.peak_bytes / recorded.peak_bytes - 1) <= WITHIN


def test_a_message_that_differs_is_shown() -> None:
    planned = plan(gpt2_like(max_positions=256), "dp=2 tp=2 micro_batch=1 zero=0", 4)
    predicted, recorded = meshwright_ledger.ledgers(planned, 3)
    first, *others = predicted.messages
    wrong = predicted.replace(messages=(first.replace(count=first.count + 1), *others))
    (difference,) = meshwright_ledger.as_json(wrong, recorded)["differences"]
    assert difference["predicted"] == difference["recorded"] + 1
    assert [row["agree"] for row in meshwright_ledger.rows(wrong, recorded)].count("NO") == 1


def test_a_rank_that_does_not_exist() -> None:
    with pytest.raises(InputError, match=r"rank 4: the plan has ranks 0 to 3"):
        meshwright_ledger.ledgers(
            plan(gpt2_like(max_positions=256), "dp=2 tp=2 micro_batch=1", 4), 4
        )
