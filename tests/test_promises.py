"""Promises: what a plan predicts of memory is an upper bound on what running it measures.

The slack is stated: a peak is never above its promise and, so that the promise is worth
something, never below half of it. What the replay says is held after each forward and backward is
what is measured, but for a few tensors (LEVEL).
"""

import pytest

from planner.cost.blocks import Blocks
from planner.schedule import lowering
from planner.search import told_layout
from planner.simulator.timeline import timeline
from planner.spec import catalog
from planner.spec.timeline import Timeline
from planner.spec.workload import Workload
from tests.examples import cpu_cluster, gpt2_like, llama_like

pytest.importorskip("torch")

from executor.processes.launch import run_plan

GPT2 = gpt2_like(hidden=64, heads=4, kv_heads=4, head_dim=16, ffn=256, vocab=515)
LLAMA = llama_like(hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=176, vocab=512)
CASES = [
    (GPT2, "pp=2 micro_batch=1 schedule=1f1b stages=3,1"),
    (GPT2, "tp=2 dp=2 micro_batch=4 zero=1"),
    (LLAMA, "dp=2 micro_batch=2 zero=1 recompute=full"),
    (LLAMA, "cp=2 tp=2 micro_batch=4 zero=1"),
]
MORE = [
    (GPT2, "dp=2 micro_batch=4 zero=0"),
    (LLAMA, "pp=2 micro_batch=2 schedule=gpipe stages=2,2"),
    (LLAMA, "tp=2 micro_batch=8"),
]

LEVEL = 0.03
"""Measured: index tensors, the loss and messages on their way were at most 2.2 % of the levels."""


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        *(pytest.param(m, x, id=f"{m.name} {x}") for m, x in CASES),
        *(pytest.param(m, x, id=f"{m.name} {x}", marks=pytest.mark.slow) for m, x in MORE),
    ],
)
def test_measured_memory_keeps_the_promise(model, layout: str) -> None:  # type: ignore[no-untyped-def]
    workload = Workload(seq_len=64, global_batch=16, dtype="fp32")
    blocks = Blocks(model, cpu_cluster(4), workload, catalog.find_runtime("native"), None)
    plan = told_layout.plan_of_layout(blocks, layout)
    measured = run_plan(plan, steps=1, warmup=1)
    assert plan.predicted is not None
    for rank, peak in measured.peak_bytes.items():
        promised = plan.predicted.stage_peak_bytes[plan.layout.coordinates(rank)["pp"]]
        assert peak <= promised, f"rank {rank} of {layout}"
        assert peak >= 0.5 * promised, f"rank {rank} of {layout}"
    played = timeline(blocks, plan)
    assert measured.timeline is not None
    for rank in measured.peak_bytes:
        most, found = (max(_levels(each, rank)) for each in (played, measured.timeline))
        assert most == pytest.approx(found, rel=LEVEL), f"rank {rank} of {layout}"
    names = {(span.rank, span.name) for span in played.spans}
    assert names == {(span.rank, span.name) for span in measured.timeline.spans}
    orders = lowering.lower(plan.layout.schedule, plan.layout.pp, plan.microbatches)
    own = [span.name for span in measured.timeline.spans if span.rank == 0]
    assert own == [str(action) for action in orders[0]]


def _levels(timeline: Timeline, rank: int) -> list[float]:
    """What a rank holds after each forward and backward: every second point, of the predicted
    behind the one of the start, of the measured one pair for every span."""
    points = [point.held_bytes for point in timeline.memory if point.rank == rank]
    if timeline.kind == "predicted":
        return points[2::2]
    own = [span for span in timeline.spans if span.rank == rank]
    pairs = zip(own, points[1::2], strict=True)
    return [held for span, held in pairs if span.stream == "compute"]
