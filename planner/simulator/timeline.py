"""Timeline: the predicted step of a plan, as spans and memory of its ranks."""

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import estimate
from planner.schedule.action import COMPUTE_KINDS, FORWARD, WEIGHT_GRADIENT, Action, Kind
from planner.simulator.held import StageBytes, curves
from planner.simulator.replay import Replay, replay
from planner.spec.layout import Layout
from planner.spec.plan import Plan
from planner.spec.timeline import MemoryPoint, Span, Stream, Timeline

ALL_RANKS_UP_TO = 64
"""Larger plans show one representative rank per stage."""

Timed = tuple[str, Stream, float, float]
"""Name, stream, begin and end."""


def timeline(blocks: Blocks, plan: Plan) -> Timeline:
    """The predicted Timeline of a plan."""
    candidates = Candidates.of_plan(
        plan.layout, plan.stages, plan.workload.global_batch, plan.model
    )
    estimates = estimate(blocks, candidates)
    played = replay(blocks, candidates, estimates, 0)
    held = curves(played, StageBytes.of(blocks, candidates, estimates, 0))
    spans: list[Span] = []
    memory: list[MemoryPoint] = []
    peaks: dict[int, float] = {}
    for place, curve in enumerate(held):
        timed = timed_actions(played, place)
        points = list(zip(curve.at_seconds.tolist(), curve.held_bytes.tolist(), strict=True))
        for rank in _ranks(plan.layout, place):
            spans += [_span(rank, *each) for each in timed]
            memory += [MemoryPoint(rank=rank, at_seconds=t, held_bytes=b) for t, b in points]
            peaks[rank] = float(estimates.memory.total[0, place])
    return Timeline(
        kind="predicted",
        title=str(plan.layout),
        ranks=plan.layout.devices,
        step_seconds=played.step_seconds,
        spans=tuple(spans),
        memory=tuple(memory),
        peak_bytes=peaks,
        capacity_bytes=plan.cluster.memory_bytes,
    )


def _ranks(layout: Layout, place: int) -> list[int]:
    """The ranks at one place of the pipeline."""
    if layout.devices > ALL_RANKS_UP_TO:
        return [layout.rank_of(pp=place)]
    return [r for r in range(layout.devices) if layout.coordinates(r)["pp"] == place]


def _span(rank: int, name: str, stream: Stream, start: float, end: float) -> Span:
    start = max(start, 0.0)
    return Span(
        rank=rank, stream=stream, name=name, start_seconds=start, end_seconds=max(start, end)
    )


def timed_actions(played: Replay, rank: int) -> list[Timed]:
    """Every action of a pipeline rank in the order of its schedule, as lowered."""
    made, reduced, updated = played.script.orders, played.reduced, played.updated
    finals = set(played.script.numbers[played.script.finals - 1].tolist())
    found: list[Timed] = []
    for number in range(made.starts[rank], made.starts[rank + 1]):
        found += _compute(played, number)
        if number in finals:
            stage = int(made.stage[number])
            name = str(Action(stage, Kind.REDUCE_GRADIENT))
            found.append((name, "dp", *reduced[stage].tolist()))
    for stage, place in enumerate(made.rank_of_stage.tolist()):
        if place == rank:
            name = str(Action(stage, Kind.OPTIMIZER))
            found.append((name, "optimizer", *updated[stage].tolist()))
    return found


def _compute(played: Replay, number: int) -> list[Timed]:
    """A compute action, the message it receives before and the one it sends after."""
    made = played.script.orders
    kind, stage, k = int(made.kind[number]), int(made.stage[number]), int(made.microbatch[number])
    start, end = float(played.starts[number]), float(played.ends[number])
    action = Action(stage, COMPUTE_KINDS[kind], k)
    found: list[Timed] = [(str(action), "compute", start, end)]
    ahead = kind == FORWARD
    if played.script.sources[number] != number:
        name = Kind.RECEIVE_FORWARD if ahead else Kind.RECEIVE_BACKWARD
        arrived = float(played.received[number])
        found.insert(
            0, (str(Action(stage, name, k)), "pp", arrived - float(played.hop[number]), arrived)
        )
    if kind != WEIGHT_GRADIENT and _leaves(played, stage, 1 if ahead else -1):
        name = Kind.SEND_FORWARD if ahead else Kind.SEND_BACKWARD
        found.append((str(Action(stage, name, k)), "pp", end, end))
    return found


def _leaves(played: Replay, stage: int, step: int) -> bool:
    """Whether the neighbouring stage exists and lies on another rank."""
    place, other = played.script.orders.rank_of_stage, stage + step
    return 0 <= other < len(place) and bool(place[other] != place[stage])
