"""ZeRO in the graph sends what FSDP2 and the project's own executor send, padding included."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.alone.sent import Sent, fake_group
from executor.transformer.model import meta_model
from planner.graph import data_parallel, transformer
from planner.graph.data_parallel import DataParallel
from planner.graph.view import RankView
from planner.spec.layout import Layout, make_stages
from planner.spec.plan import Plan
from planner.spec.runtime import CONTEXT_STYLES
from planner.spec.workload import DTYPE_BYTES, Workload
from tests.examples import cpu_cluster, gpt2_like, llama_like, plain_runtime
from tests.executor.kinds import KINDS, MIXTURES
from tests.executor.plans import ALL, make_plan
from tests.ledger import drawn
from tests.ledger.drawn import Case
from tests.ledger.programs import planned
from tests.ledger.programs.sharded import ShardedLayer, Ways
from tests.ledger.recorder import record
from tests.ledger.test_graph import DTYPES, layer_graph, rows, says

DRAWS = settings(max_examples=40)
FP32_BYTES = 4


def messages(collectives: list[Any], axis: str, how: DataParallel) -> Counter[Sent]:
    """Collectives of a data-parallel group: the last all-reduce of HSDP is over the replicas."""
    found = []
    for node in collectives:
        over_replicas = node.op == "all_reduce" and how.zero >= 2
        name, ranks = ("replicas", how.ranks // how.shards) if over_replicas else (axis, how.shards)
        found += [Sent(node.op, name, ranks, node.phase, node.message_bytes)] * node.count
    return Counter(sent for sent in found if sent.ranks > 1)


def fully_sharded(case: Case, ways: Ways) -> Counter[Sent]:
    """What FSDP2 sends for one layer; the layer's own collectives are another test's matter."""
    dtype = DTYPES[case.view.dtype]
    with fake_group(ways.ranks, case.rank):
        layer = ShardedLayer(case.model, case.kind, ways, dtype)
        x, memory = rows(case, case.view.seq), rows(case, case.view.source or 0)
        sent = record(layer.groups, lambda: layer(x.to(dtype), case.view.batch, memory.to(dtype)))
    return Counter(each for each in sent if each.axis in ("dp", "edp", "replicas"))


def as_graph(case: Case, ways: Ways) -> Counter[Sent]:
    graph = layer_graph(case)
    ranks, shard = ways.shards * ways.replicas, ways.shards
    weight = DTYPE_BYTES[case.view.dtype]
    dense = DataParallel(ranks, ways.zero, weight, FP32_BYTES, shard)
    expert = dense.of_experts(case.view)
    return messages(data_parallel.data_parallel(graph, dense, ""), "dp", dense) + messages(
        data_parallel.expert_data_parallel(graph, expert, ""), "edp", expert
    )


@st.composite
def dense_ways(draw: Any) -> tuple[Case, Ways]:
    """A layer without experts over any number of ranks, also such as divide nothing evenly."""
    case = draw(drawn.tensor_parallel(sequence_parallel=True))
    ways = Ways(
        zero=draw(st.sampled_from((2, 3))),
        shards=draw(st.integers(2, 9)),
        replicas=draw(st.integers(1, 3)),
        tp=case.view.tp,
    )
    return at_any_rank(draw, case, ways), ways


@st.composite
def expert_ways(draw: Any) -> tuple[Case, Ways]:
    case = draw(drawn.expert_parallel(cp=1))
    view = case.view
    shards = view.ep * view.etp * draw(st.integers(1, 3))
    ways = Ways(draw(st.sampled_from((2, 3))), shards, 1, view.tp, view.ep, view.etp)
    return at_any_rank(draw, case, ways), ways


def at_any_rank(draw: Any, case: Case, ways: Ways) -> Case:
    """The case at one of the job's ranks, also one whose share is padding only."""
    return dataclasses.replace(case, rank=draw(st.integers(0, ways.ranks - 1)))


@DRAWS
@given(dense_ways())
def test_fully_sharded_layer(drawn_ways: tuple[Case, Ways]) -> None:
    case, ways = drawn_ways
    assert as_graph(case, ways) == fully_sharded(case, ways)


@DRAWS
@given(expert_ways())
def test_fully_sharded_experts(drawn_ways: tuple[Case, Ways]) -> None:
    case, ways = drawn_ways
    assert as_graph(case, ways) == fully_sharded(case, ways)


MESHES = (
    (1, 1, 2),
    (2, 1, 1),
    (2, 1, 3),
    (4, 1, 2),
    (8, 1, 1),
    (1, 1, 3),
    (1, 2, 1),
    (2, 2, 2),
    (1, 3, 2),
)
"""tp, cp, dp."""


@st.composite
def plans(draw: Any, model: Any) -> Plan:
    tp, cp, dp = draw(st.sampled_from(MESHES))
    groups = tp * cp * draw(st.integers(1, 2))
    dtype = draw(st.sampled_from(("bf16", "fp32", "fp64")))
    spec = model(
        layers=draw(st.integers(1, 2)),
        hidden=draw(st.integers(1, 40)),
        heads=groups,
        kv_heads=groups,
        head_dim=2 * draw(st.integers(1, 3)),
        ffn=tp * draw(st.integers(1, 9)),
        vocab=draw(st.integers(50, 99)),
    )
    micro_batch = draw(st.integers(1, 2))
    layout = Layout(
        tp=tp,
        cp=cp,
        dp=dp,
        micro_batch=micro_batch,
        zero=draw(st.integers(0, 1)),
        cp_style=draw(st.sampled_from(CONTEXT_STYLES)),
    )
    seq_len = 2 * cp * tp * draw(st.integers(1, 2))
    work = {"seq_len": seq_len, "global_batch": dp * micro_batch, "dtype": dtype}
    return Plan(
        model=spec,
        cluster=cpu_cluster(layout.devices),
        workload=Workload.model_validate(work),
        runtime=plain_runtime(),
        layout=layout,
        stages=make_stages(layout, (spec.layers,)),
    )


@pytest.mark.parametrize("model", [gpt2_like, llama_like])
def test_executor(model: Any) -> None:
    """A whole step: embedding, layers, head and loss, the gradients over tp, ZeRO over dp * cp."""
    DRAWS(given(plans(model), st.integers(0, 63))(executor_agrees))()


@pytest.mark.parametrize("degrees", [(2, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("name", KINDS)
def test_executor_of_every_kind(name: str, degrees: tuple[int, int]) -> None:
    """Encoders, two stacks, other norms and heads."""
    tp, dp = degrees
    layout = {"tp": tp, "dp": dp, "micro_batch": 2, "zero": 1}
    executor_agrees(make_plan(name, dtype="bf16", **layout), number=1)


@pytest.mark.parametrize(
    "degrees",
    [
        {"tp": 2},
        {"dp": 4, "ep": 2},
        {"tp": 2, "dp": 2, "ep": 4, "zero": 0},
        {"tp": 2, "cp": 2, "dp": 2, "ep": 2, "etp": 2},
    ],
)
@pytest.mark.parametrize("name", MIXTURES)
def test_executor_of_mixtures(name: str, degrees: dict[str, int]) -> None:
    """Copies of tokens to the experts and back, and gradients over those that share experts."""
    if degrees.get("etp", 1) > 1 and ALL[name].main.kinds[-1].feed_forward.expert.bias:
        degrees = {**degrees, "etp": 1}
    executor_agrees(make_plan(name, dtype="bf16", **({"micro_batch": 2, "zero": 1} | degrees)), 0)


def executor_agrees(plan: Plan, number: int) -> None:
    layout, work = plan.layout, plan.workload
    replicas = layout.dp * layout.cp
    rank = number % replicas * layout.tp  # first of a tp group: the largest share of vocabulary
    with fake_group(layout.devices, rank):
        sent = Counter(planned.step(plan))
    view = RankView(
        layout.micro_batch,
        work.seq_len,
        tp=layout.tp,
        cp=layout.cp,
        cp_style=layout.cp_style,
        ep=layout.ep,
        etp=layout.etp,
        dtype=work.dtype,
    )
    weight = DTYPE_BYTES[work.dtype]
    dense = DataParallel(replicas, layout.zero, weight, max(weight, FP32_BYTES), line_bytes=64)
    graph = transformer.model_graph(plan.model, view)
    over_tp = data_parallel.replicated_gradients(graph, view, dense, "")
    said = says(view, [*transformer.collectives(graph), *over_tp])
    said += messages(data_parallel.data_parallel(graph, dense, ""), "dp", dense)
    expert = dense.of_experts(view)
    said += messages(data_parallel.expert_data_parallel(graph, expert, ""), "edp", expert)
    said[Sent("all_reduce", "everyone", layout.devices, "backward", 8)] += 1  # the gradients' norm
    assert said == sent


@DRAWS
@given(
    st.sampled_from([gpt2_like, llama_like]),
    st.integers(1, 3),
    st.sampled_from([2, 3, 5]),
    st.sampled_from([2, 3]),
)
def test_executor_in_shards(model: Any, layers: int, dp: int, zero: int) -> None:
    """Every unit is scattered once per backward; ZeRO 2 gathers once per step, 3 once per pass.

    A unit is padded: every parameter to 64 bytes, the whole of it to dp.
    """
    spec = model(layers=layers, hidden=24, heads=2, kv_heads=2, head_dim=12, ffn=36, vocab=53)
    layout = Layout(dp=dp, micro_batch=1, zero=zero)
    plan = Plan(
        model=spec,
        cluster=cpu_cluster(dp),
        workload=Workload.model_validate({"seq_len": 6, "global_batch": dp, "dtype": "fp32"}),
        runtime=plain_runtime(),
        layout=layout,
        stages=make_stages(layout, (layers,)),
    )
    with fake_group(dp, 0):
        sent = [each for each in planned.step(plan) if each.axis == "dp"]
    assert {each.op for each in sent} == {"all_gather", "reduce_scatter"}
    units = layers + 2 + spec.tied_embeddings
    parameters = meta_model(spec, 6).parameters()
    lines = sum(-(-parameter.nbytes // 64) * 64 for parameter in parameters)
    for op, passes in (("reduce_scatter", 1), ("all_gather", zero - 1)):
        own = [each.message_bytes for each in sent if each.op == op]
        assert len(own) == units * passes
        assert 0 <= sum(own) - lines * passes <= units * passes * (dp - 1) * FP32_BYTES
