"""Collective times by operation, message size, group size and number of groups at once.

Every repeat begins with a barrier of all ranks and a little computing, as between two
collectives of training: a collective that follows a barrier at once finds awake threads and warm
caches and is up to twice as fast. Its time runs from the mean moment of entry to the moment the
last rank leaves, on the clock that the processes of one machine share, so it holds the transfer
and what a rank waits on average for a late one. Of a send and its receive the receiver is always
there first. The sample is the mean of the middle four fifths of the repeats; with several groups
the slowest one of each repeat counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from planner.spec.cluster import Backend
from planner.spec.profile import CollectiveOp, CollectiveSample
from profiler.stopwatch import Lap, Timing
from profiler.team import Team

OPS: tuple[CollectiveOp, ...] = get_args(CollectiveOp)
COMMON: tuple[CollectiveOp, ...] = ("all_reduce", "all_gather", "reduce_scatter", "send_recv")
"""What the executor uses; the others are measured at fewer sizes, last."""

KIB, MIB = 1 << 10, 1 << 20
ENDS = (KIB, 4 * KIB, 256 * KIB, 16 * MIB)
BETWEEN = (16 * KIB, 64 * KIB, MIB, 4 * MIB)
SECONDS = 0.16
LEAST_REPEATS = 5


@dataclass(frozen=True, slots=True)
class CollectiveRequest:
    """One collective to time: `groups` groups of `ranks` at once, each with a full message."""

    op: CollectiveOp
    ranks: int
    groups: int
    message_bytes: int

    @property
    def busy(self) -> int:
        """Ranks that take part."""
        return self.ranks * self.groups

    def __str__(self) -> str:
        many = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{self.op} {self.message_bytes} B over {self.ranks} ranks{many}"


def backend(device: str) -> Backend:
    """The backend that training uses on a device kind."""
    return "nccl" if device == "cuda" else "gloo"


def cases(max_ranks: int) -> list[tuple[int, int]]:
    """(ranks, groups) worth measuring: one group of each power of two, then all ranks in pairs,
    fours and so on. max_ranks that is no power of two is a group size of its own."""
    powers = [2**n for n in range(1, 8) if 2**n <= max_ranks]
    sizes = sorted({*powers, *([max_ranks] if max_ranks > 1 else [])})
    several = [(size, max_ranks // size) for size in sizes if max_ranks // size > 1]
    return [(size, 1) for size in sizes] + several


def essential(max_ranks: int, sizes: Sequence[int] = ()) -> list[CollectiveRequest]:
    """Common operations at the ends of the grid and at the sizes asked for."""
    return _grid(COMMON, cases(max_ranks), sorted({*ENDS, *sizes}))


def further(max_ranks: int) -> list[CollectiveRequest]:
    """Common operations between the ends, then the rare ones at the ends."""
    rare = [op for op in OPS if op not in COMMON]
    return _grid(COMMON, cases(max_ranks), BETWEEN) + _grid(rare, cases(max_ranks), ENDS)


def _grid(
    ops: Sequence[CollectiveOp], found: Sequence[tuple[int, int]], sizes: Sequence[int]
) -> list[CollectiveRequest]:
    return [
        CollectiveRequest(op, ranks, groups, size)
        for ranks, groups in found
        for op in ops
        for size in sizes
        if op != "send_recv" or ranks == 2
    ]


def measure_collectives(
    requests: Sequence[CollectiveRequest], team: Team, seconds: float = SECONDS
) -> Iterator[CollectiveSample]:
    """A sample of each request in turn. Raises RunError when a worker fails."""
    for request in requests:
        yield measure_collective(request, team, seconds)


def measure_collective(
    request: CollectiveRequest, team: Team, seconds: float = SECONDS
) -> CollectiveSample:
    """The sample of one request, timed for about `seconds` and at least five times."""
    ranks = range(request.busy)
    team.join(tuple(ranks[first : first + request.ranks]) for first in ranks[:: request.ranks])
    results: list[list[tuple[float, float]]] = team.run(
        "collective",
        request.busy,
        op=request.op,
        ranks=request.ranks,
        message_bytes=request.message_bytes,
        seconds=seconds,
        repeats=LEAST_REPEATS,
    )
    seconds_each = durations(results, request.ranks)
    timing = Timing.of([Lap(each, 0.0) for each in seconds_each])
    return CollectiveSample(
        op=request.op,
        backend=backend(team.device),
        ranks=request.ranks,
        groups=request.groups,
        message_bytes=request.message_bytes,
        seconds=typical(seconds_each),
        spread=timing.spread,
        repeats=timing.repeats,
    )


def durations(results: Sequence[Sequence[tuple[float, float]]], ranks: int) -> list[float]:
    """Seconds of each repeat: mean entry to last exit of a group, of the slowest group.

    results: by rank and repeat, when the rank entered and left. Groups are consecutive ranks.
    """
    groups = [results[first : first + ranks] for first in range(0, len(results), ranks)]
    return [
        max(_duration([rank[repeat] for rank in group]) for group in groups)
        for repeat in range(len(results[0]))
    ]


def _duration(entries: Sequence[tuple[float, float]]) -> float:
    entry = sum(start for start, _ in entries) / len(entries)
    return max(max(end for _, end in entries) - entry, 1e-9)


def typical(seconds: Sequence[float]) -> float:
    """Mean of the middle four fifths.

    A step sums dozens of collectives, so their mean counts; and they have two speeds (a thread
    that is awake or not), between which a median jumps.
    """
    ordered = sorted(seconds)
    cut = len(ordered) // 10
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)
