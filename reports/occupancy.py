"""Occupancy: how the step of one rank divides into kinds of time.

The parts are exposed seconds and sum to the step: a span counts only where no kind before it in
the order runs on the same rank, so that an overlapped reduction counts for what sticks out.

    forward, backward, gradients, optimizer, other     exposed seconds of those spans
    pipeline                                           what is left until the last span of any
                                                       rank ends: waiting and transfers
    runtime                                            from there to the end of the step

Sends and receives belong to the pipeline's part, because a measured receive holds both the wait for
the neighbour and the transfer. Collectives of tensor parallelism run inside F and B.

    bubble = mean over ranks of pipeline / step
"""

from collections.abc import Iterable, Sequence

from planner.spec.timeline import Span, Timeline
from reports.kinds import COMMUNICATION, KINDS, action_of, kind_of

WORK = tuple(kind for kind in KINDS if kind not in COMMUNICATION)


def ranks_of(timeline: Timeline) -> tuple[int, ...]:
    """The ranks that have spans, ascending."""
    return tuple(sorted({span.rank for span in timeline.spans}))


def seconds_by_kind(timeline: Timeline, rank: int) -> dict[str, float]:
    """Exposed seconds of one rank by kind, summing to the step; kinds that never ran are out."""
    spans = [s for s in timeline.spans if s.rank == rank and s.stream != "tp"]
    parts: dict[str, float] = {}
    seen: list[Span] = []
    before = 0.0
    for kind in WORK:
        seen += [span for span in spans if kind_of(span) == kind]
        covered = covered_seconds(seen)
        if covered > before:
            parts[kind] = covered - before
        before = covered
    last = max((span.end_seconds for span in timeline.spans), default=0.0)
    left = {"pipeline": last - before, "runtime": timeline.step_seconds - last}
    return parts | {kind: seconds for kind, seconds in left.items() if seconds > 0}


def covered_seconds(spans: Iterable[Span]) -> float:
    """Seconds during which at least one of the spans runs."""
    total, reached = 0.0, 0.0
    for span in sorted(spans, key=lambda s: s.start_seconds):
        total += max(span.end_seconds - max(span.start_seconds, reached), 0.0)
        reached = max(reached, span.end_seconds)
    return total


def bubble(timeline: Timeline, ranks: Sequence[int] | None = None) -> float:
    """Share of the step in which a rank neither computes, reduces nor updates, mean over ranks."""
    chosen = ranks_of(timeline) if ranks is None else ranks
    waits = [seconds_by_kind(timeline, rank).get("pipeline", 0.0) for rank in chosen]
    return sum(waits) / (len(waits) * timeline.step_seconds) if waits else 0.0


def rank_rows(timeline: Timeline) -> list[dict[str, float]]:
    """Per rank its exposed seconds by kind and its peak memory, for a table."""
    parts = {rank: seconds_by_kind(timeline, rank) for rank in ranks_of(timeline)}
    kinds = list(dict.fromkeys(kind for each in parts.values() for kind in each))
    return [
        {"rank": rank}
        | {f"{kind}_seconds": each.get(kind, 0.0) for kind in kinds}
        | {"peak_bytes": timeline.peak_bytes.get(rank, 0.0)}
        for rank, each in parts.items()
    ]


def busiest_rank(timeline: Timeline) -> int:
    """The rank that computes longest (the lowest one of equals); 0 without spans."""
    totals: dict[int, float] = dict.fromkeys(ranks_of(timeline), 0.0)
    for span in timeline.spans:
        if kind_of(span) in ("forward", "backward"):
            totals[span.rank] += span.seconds
    return max(totals, key=lambda rank: (totals[rank], -rank), default=0)


def stage_by_rank(timeline: Timeline) -> dict[int, int]:
    """The (first) stage that each rank works on, read from its actions."""
    stages: dict[int, int] = {}
    for span in timeline.spans:
        action = action_of(span)
        if action is not None:
            stages.setdefault(span.rank, action.stage)
    return stages


def shown_ranks(timeline: Timeline, limit: int = 16) -> tuple[int, ...]:
    """All ranks, or the lowest rank of every stage where there are more than `limit`."""
    ranks = ranks_of(timeline)
    if len(ranks) <= limit:
        return ranks
    stages = stage_by_rank(timeline)
    first = {stages.get(rank, -1): rank for rank in reversed(ranks)}
    return tuple(sorted(first.values()))
