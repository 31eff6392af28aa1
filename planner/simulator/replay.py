"""Replay: the actions of a plan with their seconds -> Timeline and memory over time.

All ranks of one stage do the same at the same time (their tensor- and data-parallel peers are
symmetric), so one representative per stage is played; on shared cores it demands the cores of
all dp*tp ranks of the stage.

One stream per stage. Forward and backward take the stage's seconds, collectives inside
included. A send is issued at once; a receive holds its rank from the moment it is reached,
begins when the send is issued and takes one hop (a rendezvous, as gloo and unbuffered NCCL
do). The optimiser of every stage waits for all reductions, because the gradient norm joins all
ranks. The step ends later by what the slowest replica takes longer (planner.cost.straggler). What
it leaves out: the skew between peers of one replica.

Memory of a stage at a moment = what it always holds + microbatches in flight * what each keeps;
the bound of planner.cost.memory adds what a single operator needs for an instant.
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import Estimates, estimate
from planner.schedule.action import RECEIVES, SENDS, Grid, Kind
from planner.simulator import engine
from planner.simulator.engine import Task
from planner.simulator.script import KINDS, NONE, Script, play, script
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
    """Play one candidate: through the event engine where cores are shared, else in one pass."""
    played = script(candidates.schedule, candidates.pp, int(candidates.microbatches[row]))
    seconds = _seconds(played, estimates, row)
    shared = blocks.cluster.shared_cores
    if shared is None:
        times = play(played, seconds)
    else:
        cores = float(candidates.dp[row] * candidates.tp[row])
        times = engine.run(tasks(played, seconds, cores), shared.factor)
    cut = iter(times)
    spans = tuple(tuple(next(cut) for _ in order) for order in played.grid)
    last = max(times[number][1] for number in played.optimizers)
    later = float(estimates.wait_seconds[row]) + blocks.runtime.step_seconds
    return Replay(played.grid, spans, last + later)


def _seconds(played: Script, estimates: Estimates, row: int) -> list[float]:
    """Seconds of every action of the script."""
    times = estimates.times
    stages = times.forward.shape[1]
    table = np.zeros((len(KINDS), stages))
    table[KINDS.index(Kind.FORWARD)] = times.forward[row]
    table[KINDS.index(Kind.BACKWARD)] = times.backward[row]
    table[KINDS.index(Kind.REDUCE_GRADIENT)] = times.reduce[row]
    table[KINDS.index(Kind.OPTIMIZER)] = times.optimizer[row]
    for kind in RECEIVES:
        table[KINDS.index(kind)] = times.hop[row]
    seconds: list[float] = table[played.kind, played.stage].tolist()
    return seconds


def tasks(played: Script, seconds: list[float], cores: float) -> list[Task]:
    """The script as tasks; computing, reducing and updating demand the stage's cores."""
    waits = {KINDS.index(kind) for kind in SENDS | RECEIVES}
    updates, reductions = set(played.optimizers), tuple(played.reductions)
    made = []
    for number, kind in enumerate(played.kind.tolist()):
        remote = played.remote[number]
        after: tuple[int, ...] = () if remote == NONE else (remote,)
        after = reductions if number in updates else after
        demand = 0.0 if kind in waits else cores
        made.append(Task(int(played.stage[number]), seconds[number], after, demand))
    return made


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
