"""Replayed: runs whose stages are cut in chunks, predicted as `estimate` predicts their layouts.

The closed form that calibrations are fitted with hides the reduction of a stage's gradients behind
the backward of one microbatch. Where a rank holds v chunks in a pipeline of p ranks, a chunk that
is through has the last p microbatches of the chunks before it still to come, p (v - 1) / v
backwards, and the event engine lets its reduction run beside them. That matters where there are
few microbatches and many replicas (MLPerf's largest runs: 6 microbatches on 448 replicas); with
many microbatches both say the same within 3 %. Without chunks, and where the engine knows no order
for the numbers, the closed form stays.
"""

import dataclasses
from collections.abc import Sequence

from planner.calibration.predicted_runs import (
    Calibrations,
    Refused,
    RunPrediction,
    predict_runs,
)
from planner.cost.block_parts import BlockGraphs
from planner.cost.blocks import Blocks
from planner.cost.stage_split import usual_counts
from planner.schedule import orders
from planner.simulator.prediction import planned
from planner.spec.calibration import Calibration, calibrate
from planner.spec.documents import InputError
from planner.spec.layout import make_stages
from planner.spec.model import ModelSpec
from planner.spec.runs.case import Case


def predict_replayed(
    cases: Sequence[Case], calibration: str | Calibration | None = None
) -> list[RunPrediction | Refused]:
    """As `predict_runs`, runs in chunks by replay."""
    found = predict_runs(cases, calibration)
    calibrations, graphs = Calibrations(calibration), _Graphs()
    pairs = zip(cases, found, strict=True)
    return [
        _again(case, each, calibrations.of(case), graphs)
        if isinstance(each, RunPrediction) and _in_chunks(case)
        else each
        for case, each in pairs
    ]


class _Graphs:
    """The graphs of a model, built once: cases share theirs."""

    def __init__(self) -> None:
        self.known: dict[ModelSpec, BlockGraphs] = {}

    def of(self, model: ModelSpec) -> BlockGraphs:
        if model not in self.known:
            self.known[model] = BlockGraphs(model)
        return self.known[model]


def _in_chunks(case: Case) -> bool:
    """Whether the run has chunks, in numbers that a schedule and the model's layers allow."""
    layout = case.layout
    if layout.pp == 1 or layout.vpp == 1 or layout.pp * layout.vpp > case.model.layers:
        return False
    name = orders.ONE_CHUNK.get(layout.schedule, layout.schedule)
    microbatches = layout.microbatches(case.workload.global_batch)
    return orders.problem(name, layout.pp, layout.vpp, microbatches) is None


def _again(
    case: Case, closed: RunPrediction, calibration: Calibration | None, graphs: _Graphs
) -> RunPrediction:
    cluster, runtime = case.cluster, case.runtime
    if calibration is not None:
        cluster, runtime = calibrate(calibration, cluster, runtime)
    parts = graphs.of(case.model)
    blocks = Blocks(case.model, cluster, case.workload, runtime, None, parts, calibration)
    counts = usual_counts(case.model, case.runtime, case.layout.pp * case.layout.vpp)
    if min(counts) == 0:
        return closed
    try:
        plan = planned(blocks, case.layout, make_stages(case.layout, counts))
    except InputError:
        return closed
    assert plan.predicted is not None
    seconds = plan.predicted.step_seconds
    ratio = seconds / closed.step_seconds
    return dataclasses.replace(
        closed,
        step_seconds=seconds,
        low_seconds=closed.low_seconds * ratio,
        high_seconds=closed.high_seconds * ratio,
    )
