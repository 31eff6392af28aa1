"""Every row of the space is one that the runtime really runs, by rules written down a second time
(from what Megatron-LM, torchtitan, DeepSpeed, FSDP2 and nanotron assert)."""

from collections.abc import Iterator

import numpy as np
import pytest

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.stage_split import usual_counts
from planner.search import planning, told_layout
from planner.search.outer import space
from planner.spec import catalog, runnable
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.runtime import CONTEXT_STYLES, Runtime
from planner.spec.workload import Workload
from tests.cost.drawn import with_experts
from tests.examples import blocks, gpt2_like, gpu_cluster, llama_like, plain_runtime

MODELS = (
    llama_like(layers=6),
    gpt2_like(layers=4, heads=6, kv_heads=6, head_dim=8, hidden=48),
    with_experts(llama_like(layers=8)),
)
MEGATRON = ("megatron-core", "megatron-deepspeed", "nemo", "megatron-lm-2021", "megatron-lm-2022")
EQUAL = ("megatron-lm-2021", "megatron-lm-2022")


def drawn(name: str) -> Iterator[Blocks]:
    """Questions of a runtime: models of several kinds on 6 to 16 devices."""
    runtime = catalog.find_runtime(name)
    for model in MODELS:
        for nodes, per_node, batch in ((1, 6, 12), (2, 4, 24), (2, 8, 16)):
            work = Workload(seq_len=48, global_batch=batch)
            if runtime.models == "runnable" and list(runnable.problems(model, work.seq_len)):
                continue
            yield blocks(model, gpu_cluster(nodes, per_node), work, runtime)


def rows_of(asked: Blocks) -> Iterator[Candidates]:
    parts = asked.model, asked.cluster, asked.workload, asked.runtime
    yield from space.legal(space.Question(*parts, asked.cluster.devices))


def broken(asked: Blocks, rows: Candidates) -> list[str]:
    """The rules that some row breaks."""
    model, name, layer = asked.model, asked.runtime.name, asked.model.layer
    batch, seq, layers = asked.workload.global_batch, asked.workload.seq_len, model.layers
    dp, tp, cp, ep, etp = rows.dp, rows.tp, rows.cp, rows.ep, rows.etp
    world, pp, vpp = asked.cluster.devices, rows.pp, rows.vpp
    experts = getattr(layer.feed_forward, "experts", 1)
    local = seq // cp // (tp if asked.runtime.sequence_parallel else 1)
    styles = np.array(CONTEXT_STYLES)[rows.style]
    rules = {
        "the degrees fill the devices": dp * tp * cp * pp == world,
        "the batch comes in whole microbatches": batch % (dp * rows.micro_batch) == 0,
        "heads % tp": (layer.attention.heads % tp == 0) & (layer.attention.kv_heads % tp == 0),
        "sequence % (2 cp)": (cp == 1) | (seq % (2 * cp) == 0),
        "sequence % tp": local * cp * (seq // cp // local) == seq,
        "heads % (tp cp) all-to-all": (cp == 1)
        | (styles != "all_to_all")
        | (layer.attention.heads % (tp * cp) == 0),
        "experts % ep": experts % ep == 0,
        "expert groups fill a stage": (tp * cp * dp) % (ep * etp) == 0,
        "a stage has a layer": np.full(len(rows), pp * vpp <= layers),
    }
    interleaved = rows.schedule == "interleaved"
    if name in MEGATRON:
        rules["whole rounds"] = (not interleaved) | (rows.microbatches % pp == 0)
        rules["ZeRO below 2"] = rows.zero < 2
    if name in EQUAL:
        rules["equal stages"] = np.full(len(rows), layers % (pp * vpp) == 0)
        rules["more than two interleave"] = np.full(len(rows), not interleaved or pp > 2)
    if name == "torchtitan":
        shard = np.where(rows.shard > 0, rows.shard, dp * cp)
        rules["dp_shard is whole"] = shard % cp == 0
        rules["dp_replicate is whole"] = (dp * cp) % shard == 0
        rules["ep borrows from FSDP and tp"] = (shard * tp) % ep == 0
        rules["no etp"] = etp == 1
        once = rows.zero == 1 if pp > 1 else rows.zero > 1
        rules["gathers and reduces once a step under a pipeline only"] = once | (dp * cp == 1)
    if name == "deepspeed":
        rules["a pipeline shards no gradients"] = np.full(len(rows), pp == 1) | (rows.zero < 2)
    if name in ("fsdp", "composer-fsdp"):
        rules["data parallel only"] = tp * cp * ep * pp == 1
    if name == "nanotron":
        rules["no chunks, ZeRO 0 or 1"] = (rows.zero < 2) & (vpp == 1)
    return [rule for rule, kept in rules.items() if not np.all(kept)]


@pytest.mark.parametrize("name", catalog.list_runtimes())
def test_every_row_of_the_space_runs_on_its_runtime(name: str) -> None:
    seen = 0
    for asked in drawn(name):
        for rows in rows_of(asked):
            seen += len(rows)
            assert not broken(asked, rows)
            # and what is said one by one agrees with what is enumerated by column
            for row in {0, len(rows) // 2, len(rows) - 1}:
                layout = rows.layout(row)
                counts = usual_counts(asked.model, asked.runtime, layout.pp * layout.vpp)
                told_layout.check_layout(asked, layout, counts)
    assert seen


EQUALLY = plain_runtime(
    schedules=("1f1b", "interleaved"), chunks=4, free_stages=False, equal_stages=True
)


@pytest.mark.parametrize("model", [llama_like(layers=6), llama_like(layers=8)])
def test_stages_that_must_be_equal_are(model: ModelSpec) -> None:
    asked = blocks(model, gpu_cluster(per_node=8), runtime=EQUALLY)
    _, plans = planning.choose(asked, top_k=20)
    assert plans
    for plan in plans:
        assert len(set(plan.layer_counts)) == 1


@pytest.mark.parametrize(
    ("runtime", "layout", "message"),
    [
        (EQUALLY, "pp=4", "pp=4 does not divide layers=6"),
        (EQUALLY, "pp=2 stages=4,2", "stages of runtime 'plain' are equal"),
        (
            EQUALLY.replace(interleaved_ranks=3),
            "pp=2 vpp=3 schedule=interleaved",
            "interleaves over at least 3 ranks",
        ),
        (
            plain_runtime(hybrid_sharding=True, axes=("tp", "cp", "dp"), context_styles=("ring",)),
            "dp=4 cp=2 zero=1 shard=1",
            "cp=2 does not divide shard=1",
        ),
    ],
)
def test_a_layout_that_its_runtime_does_not_run_is_refused(
    runtime: Runtime, layout: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        told_layout.plan_of_layout(blocks(llama_like(layers=6), runtime=runtime), layout)


def test_equal_stages_are_not_free() -> None:
    with pytest.raises(ValueError, match="equal stages are not free"):
        plain_runtime(equal_stages=True)
