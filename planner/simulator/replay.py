"""Replay: the actions of a plan as tasks of the event engine -> Timeline and memory over time.

All ranks of one stage do the same at the same time (their tensor- and data-parallel peers are
symmetric), so one representative per stage is played; on shared cores it demands the cores of
all dp*tp ranks of the stage.

One stream per stage. Forward and backward take the stage's seconds, collectives inside
included. A send is issued at once; a receive holds its rank from the moment it is reached,
begins when the send is issued and takes one hop (a rendezvous, as gloo and unbuffered NCCL
do). The optimiser of every stage waits for all reductions, because the gradient norm joins all
ranks. What it leaves out: stragglers, and the skew between peers.

Memory of a stage at a moment = what it always holds + microbatches in flight * what each keeps;
the bound of planner.cost.memory adds what a single operator needs for an instant.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import Estimates, estimate
from planner.schedule import lowering
from planner.schedule.action import RECEIVES, SENDS, Action, Grid, Kind
from planner.schedule.check import send_of
from planner.simulator import engine
from planner.simulator.engine import Task
from planner.spec.layout import Layout
from planner.spec.plan import Plan
from planner.spec.timeline import MemoryPoint, Span, Stream, Timeline

ALL_RANKS_UP_TO = 64
"""Larger plans show one representative rank per stage."""

STREAMS: dict[Kind, Stream] = {
    Kind.SEND_FORWARD: "pp",
    Kind.RECEIVE_FORWARD: "pp",
    Kind.SEND_BACKWARD: "pp",
    Kind.RECEIVE_BACKWARD: "pp",
    Kind.REDUCE_GRADIENT: "dp",
    Kind.OPTIMIZER: "optimizer",
}


@dataclass(frozen=True, slots=True)
class Replay:
    """The spans of one representative per stage, in seconds."""

    grid: Grid
    spans: tuple[tuple[tuple[float, float], ...], ...]
    step_seconds: float


def replay(blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int) -> Replay:
    """Play one candidate through the event engine."""
    microbatches = int(candidates.microbatches[row])
    grid = lowering.lower(candidates.schedule, candidates.pp, microbatches)
    tasks = list(_tasks(grid, candidates, estimates, row, blocks.cluster.shared_cores is not None))
    shared = blocks.cluster.shared_cores
    times = engine.run(tasks, shared.factor) if shared else engine.run(tasks)
    cut = iter(times)
    spans = tuple(tuple(next(cut) for _ in order) for order in grid)
    return Replay(grid, spans, max(e for _, e in times) + blocks.runtime.step_seconds)


def _tasks(
    grid: Grid, candidates: Candidates, estimates: Estimates, row: int, shared: bool
) -> Iterator[Task]:
    flat = [(rank, action) for rank, order in enumerate(grid) for action in order]
    where = {action: index for index, (_, action) in enumerate(flat)}
    reductions = tuple(where[a] for _, a in flat if a.kind == Kind.REDUCE_GRADIENT)
    demand = float(candidates.dp[row] * candidates.tp[row]) if shared else 0.0
    for rank, action in flat:
        after: tuple[int, ...] = ()
        if (send := send_of(action)) is not None:
            after = (where[send],)
        if action.kind == Kind.OPTIMIZER:
            after = reductions
        busy = 0.0 if action.kind in SENDS | RECEIVES else demand
        yield Task(rank, _seconds(action, estimates, row), after, busy)


def _seconds(action: Action, estimates: Estimates, row: int) -> float:
    times, stage = estimates.times, action.stage
    if action.kind in RECEIVES:
        return float(times.hop[row])
    if action.kind in SENDS:
        return 0.0
    table = {
        Kind.FORWARD: times.forward,
        Kind.BACKWARD: times.backward,
        Kind.REDUCE_GRADIENT: times.reduce,
        Kind.OPTIMIZER: times.optimizer,
    }[action.kind]
    return float(table[row, stage])


def timeline(blocks: Blocks, plan: Plan) -> Timeline:
    """The predicted Timeline of a plan."""
    candidates = Candidates.of_plan(plan.layout, plan.stages, plan.workload.global_batch)
    estimates = estimate(blocks, candidates)
    played = replay(blocks, candidates, estimates, 0)
    ranks = plan.layout.devices
    spans: list[Span] = []
    memory: list[MemoryPoint] = []
    peaks: dict[int, float] = {}
    for stage in range(candidates.pp):
        curve = _held(played, estimates, stage)
        for rank in _ranks(plan.layout, stage):
            spans += _spans(played, stage, rank)
            memory += [MemoryPoint(rank=rank, at_seconds=t, held_bytes=b) for t, b in curve]
            peaks[rank] = float(estimates.memory.total[0, stage])
    return Timeline(
        kind="predicted",
        title=str(plan.layout),
        ranks=ranks,
        step_seconds=played.step_seconds,
        spans=tuple(spans),
        memory=tuple(memory),
        peak_bytes=peaks,
        capacity_bytes=plan.cluster.memory_bytes,
    )


def _ranks(layout: Layout, stage: int) -> list[int]:
    if layout.devices > ALL_RANKS_UP_TO:
        return [layout.rank_of(pp=stage)]
    return [r for r in range(layout.devices) if layout.coordinates(r)["pp"] == stage]


def _spans(played: Replay, stage: int, rank: int) -> list[Span]:
    return [
        Span(
            rank=rank,
            stream=STREAMS.get(action.kind, "compute"),
            name=str(action),
            start_seconds=start,
            end_seconds=end,
        )
        for action, (start, end) in zip(played.grid[stage], played.spans[stage], strict=True)
    ]


def _held(played: Replay, estimates: Estimates, stage: int) -> list[tuple[float, float]]:
    memory = estimates.memory
    always = float(
        memory.weights[0, stage] + memory.gradients[0, stage] + memory.optimizer[0, stage]
    )
    each = float(memory.per_microbatch[0, stage])
    held, curve = 0, [(0.0, always)]
    for action, (_, end) in zip(played.grid[stage], played.spans[stage], strict=True):
        if action.kind in (Kind.FORWARD, Kind.BACKWARD):
            held += 1 if action.kind == Kind.FORWARD else -1
            curve.append((end, always + held * each))
    return curve
