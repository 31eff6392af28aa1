"""Replayed: runs whose stages are cut in chunks, predicted as `estimate` predicts their layouts.

The closed form that calibrations are fitted with hides the reduction of a stage's gradients behind
the backward of one microbatch. Where a rank holds v chunks in a pipeline of p ranks, a chunk that
is through has the last p microbatches of the chunks before it still to come, p (v - 1) / v
backwards, and the event engine lets its reduction run beside them. That matters where there are
few microbatches and many replicas (MLPerf's largest runs: 6 microbatches on 448 replicas); with
many microbatches both say the same within 3 %. Without chunks the closed form stays, and where the
engine knows no order for the numbers, which the prediction then notes.

A closed form that hides a chunk behind the next ones, for L layers, v chunks, a reduction of R and
a backward of b,

    exposed = max( R/L,  R/v - own,  R - own - (v-1)/v p b ),      own = (1/v - 1/L) b

agrees with the replay within 1.6 % (standard deviation) where chunks are equal, 3.9 % where they
are not, of which the bubble is the rest: it would not do instead. docs/validation.md says what a
fit with it did to NeMo.
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

CLOSED = "vpp that no order is known for: closed form, not replayed"
"""Noted on a prediction."""


def predict_replayed(
    cases: Sequence[Case], calibration: str | Calibration | None = None
) -> list[RunPrediction | Refused]:
    """As `predict_runs`, runs in chunks by replay."""
    found = predict_runs(cases, calibration)
    calibrations, graphs = Calibrations(calibration), _Graphs()
    pairs = zip(cases, found, strict=True)
    return [
        _again(case, each, calibrations.of(case), graphs)
        if isinstance(each, RunPrediction) and case.layout.pp > 1 and case.layout.vpp > 1
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


def _playable(case: Case) -> bool:
    """Whether a schedule and the model's layers allow the run's numbers of chunks."""
    layout = case.layout
    if layout.pp * layout.vpp > case.model.layers:
        return False
    name = orders.ONE_CHUNK.get(layout.schedule, layout.schedule)
    microbatches = layout.microbatches(case.workload.global_batch)
    return orders.problem(name, layout.pp, layout.vpp, microbatches) is None


def _again(
    case: Case, closed: RunPrediction, calibration: Calibration | None, graphs: _Graphs
) -> RunPrediction:
    kept = dataclasses.replace(closed, notes=(*closed.notes, CLOSED))
    if not _playable(case):
        return kept
    cluster, runtime = case.cluster, case.runtime
    if calibration is not None:
        cluster, runtime = calibrate(calibration, cluster, runtime)
    parts = graphs.of(case.model)
    blocks = Blocks(case.model, cluster, case.workload, runtime, None, parts, calibration)
    counts = usual_counts(case.model, case.runtime, case.layout.pp * case.layout.vpp)
    if min(counts) == 0:
        return kept
    try:
        plan = planned(blocks, case.layout, make_stages(case.layout, counts))
    except InputError:
        return kept
    assert plan.predicted is not None
    seconds = plan.predicted.step_seconds
    ratio = seconds / closed.step_seconds
    return dataclasses.replace(
        closed,
        step_seconds=seconds,
        low_seconds=closed.low_seconds * ratio,
        high_seconds=closed.high_seconds * ratio,
    )
