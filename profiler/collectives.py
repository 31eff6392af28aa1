"""Collective times by operation, message size, group size and number of groups at once.

Every repeat begins with a barrier of all ranks and a little computing, as between two
collectives of training: a collective that follows a barrier at once finds awake threads and warm
caches and is up to twice as fast. Its time runs from the mean moment of entry to the moment the
last rank leaves, on the clock that the processes of one machine share, so it holds the transfer
and what a rank waits on average for a late one. Of a send and its receive the receiver is always
there first. On GPUs the device times a burst of them instead, as launches run ahead of it.
Groups at once are consecutive ranks (stride 1), or ranks `stride` apart that interleave, as
data-parallel groups do beside tensor-parallel ones. The sample is the mean of the middle four
fifths of the repeats; with several groups the slowest one of each repeat counts.

On a network of its own (`lead_seconds`) links matter and not threads: all ranks enter at moments
that they have agreed on, one shortly after another (profiler.transfers), the receiver of a message
a lead before its sender, and the time runs from the last entry. Ranks that share cores would enter
apart after computing, which the slowdown of their computing says already. The sample is the median:
no thread is awake there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from statistics import fmean, median
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
NODES = 1
"""A team runs on one machine; `meshwright import` reads nccl-tests of several."""
LEAST_REPEATS = 5
BURST = 8
"""Collectives in a row that a GPU times; assumed: enough to hide the launch of the first."""
ALWAYS_IN_PLACE = ("all_reduce", "broadcast")
EITHER_WAY: tuple[CollectiveOp, ...] = ("all_gather", "reduce_scatter")
"""Ops that torch runs in place only, and those that it runs both ways."""


@dataclass(frozen=True, slots=True)
class CollectiveRequest:
    """One collective to time: `groups` groups of `ranks` at once, each with a full message.

    stride: distance in ranks between the members of a group; fewer groups than that leave ranks
    between them idle. inside: in place, for an op that runs either way.
    """

    op: CollectiveOp
    ranks: int
    groups: int
    message_bytes: int
    stride: int = 1
    inside: bool = False

    @property
    def in_place(self) -> bool:
        """Whether the result overwrites the input."""
        return self.inside or self.op in ALWAYS_IN_PLACE

    @property
    def members(self) -> list[tuple[int, ...]]:
        """The ranks of every group."""
        span = self.ranks * self.stride
        firsts = (block + first for block in count(0, span) for first in range(self.stride))
        return [
            tuple(range(first, first + span, self.stride)) for first in islice(firsts, self.groups)
        ]

    @property
    def team(self) -> int:
        """How many ranks there must be, idle ones included."""
        return max(map(max, self.members)) + 1

    def key(self, backend: Backend) -> tuple[object, ...]:
        """That of its sample."""
        case = (self.op, backend, self.ranks, self.groups, NODES, self.in_place)
        return (*case, self.stride, float(self.message_bytes))

    @property
    def busy(self) -> int:
        """Ranks that take part."""
        return self.ranks * self.groups

    def __str__(self) -> str:
        many = f", {self.groups} groups" if self.groups > 1 else ""
        apart = f" {self.stride} apart" if self.stride > 1 else ""
        place = ", in place" if self.inside else ""
        return f"{self.op} {self.message_bytes} B over {self.ranks} ranks{apart}{many}{place}"


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


def strides(max_ranks: int) -> list[tuple[int, int, int]]:
    """(ranks, groups, stride) of interleaved groups that fill max_ranks, powers of two."""
    found = []
    for ranks, groups in cases(max_ranks):
        for stride in (2**n for n in range(1, 8)):
            if ranks * groups == max_ranks and groups > 1 and max_ranks % (ranks * stride) == 0:
                found.append((ranks, groups, stride))
    return found


def essential(max_ranks: int, sizes: Sequence[int] = ()) -> list[CollectiveRequest]:
    """Common operations at the ends of the grid and at the sizes asked for."""
    return _grid(COMMON, cases(max_ranks), sorted({*ENDS, *sizes}))


def further(max_ranks: int) -> list[CollectiveRequest]:
    """Common operations between the ends, the rare ones, groups that interleave, in place."""
    rare = [op for op in OPS if op not in COMMON]
    apart = [
        replace(request, stride=stride)
        for ranks, groups, stride in strides(max_ranks)
        for request in _grid(COMMON, [(ranks, groups)], ENDS)
    ]
    inside = [replace(r, inside=True) for r in _grid(EITHER_WAY, cases(max_ranks), ENDS)]
    between = _grid(COMMON, cases(max_ranks), BETWEEN)
    return between + _grid(rare, cases(max_ranks), ENDS) + apart + inside


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


def measure_collective(
    request: CollectiveRequest,
    team: Team,
    seconds: float = SECONDS,
    burst: int | None = None,
    lead_seconds: float | None = None,
) -> CollectiveSample:
    """The sample of one request, timed for about `seconds` and at least five times.

    burst: collectives in a row timed by the device; on a CPU none unless told. lead_seconds: on a
    network of its own, longer than a message of no bytes takes (see the top of the file).
    """
    team.join(request.members)
    results: list[list[tuple[float, float]]] = team.run(
        "collective",
        request.team,
        op=request.op,
        groups=request.members,
        message_bytes=request.message_bytes,
        in_place=request.inside,
        burst=(BURST if team.device == "cuda" else 0) if burst is None else burst,
        seconds=seconds,
        repeats=LEAST_REPEATS,
        lead_seconds=lead_seconds,
    )
    ordered = [results[rank] for group in request.members for rank in group]
    seconds_each = durations(ordered, request.ranks, max if lead_seconds else fmean)
    timing = Timing.of([Lap(each, 0.0) for each in seconds_each])
    return CollectiveSample(
        op=request.op,
        backend=backend(team.device),
        ranks=request.ranks,
        groups=request.groups,
        nodes=NODES,
        in_place=request.in_place,
        stride=request.stride,
        message_bytes=request.message_bytes,
        seconds=median(seconds_each) if lead_seconds else typical(seconds_each),
        spread=timing.spread,
        repeats=timing.repeats,
    )


def durations(
    results: Sequence[Sequence[tuple[float, float]]],
    ranks: int,
    entry: Callable[[Sequence[float]], float] = fmean,
) -> list[float]:
    """Seconds of each repeat: entry to last exit of a group, of the slowest group.

    results: by rank and repeat, when the rank entered and left, one group after another. entry:
    which moment of those that a group's ranks entered at.
    """
    groups = [results[first : first + ranks] for first in range(0, len(results), ranks)]
    return [
        max(_duration([rank[repeat] for rank in group], entry) for group in groups)
        for repeat in range(len(results[0]))
    ]


def _duration(
    entries: Sequence[tuple[float, float]], entry: Callable[[Sequence[float]], float]
) -> float:
    begun = entry([start for start, _ in entries])
    return max(max(end for _, end in entries) - begun, 1e-9)


def typical(seconds: Sequence[float]) -> float:
    """Mean of the middle four fifths.

    A step sums dozens of collectives, so their mean counts; and they have two speeds (a thread
    that is awake or not), between which a median jumps.
    """
    ordered = sorted(seconds)
    cut = len(ordered) // 10
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)
