"""nccl-tests: the profile of what all_reduce_perf and its siblings timed (nccl_text, nccl_json).

Every size is timed twice, out of place and in place. size is that of the full tensor in every
test (all_gather: the output, reduce_scatter: the input), as in our samples. sendrecv passes a
message around the ring of all ranks at once, so its sample is that of two ranks. An all-to-all
cannot run in place, and the test does not check that it does.

Where only a standard deviation over the mean was kept, spread is 1.349 of it: the interquartile
range of a normal distribution.

Refused: results that the test found wrong (#wrong > 0), times of the host (-C 1, cputime).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from planner.spec.documents import InputError
from planner.spec.profile import CollectiveOp, CollectiveSample, Machine
from profiler.imports.outcome import Outcome, Wanted, measured_by, profile_of_collectives
from profiler.imports.source import Source

TESTS: dict[str, CollectiveOp | None] = {
    "all_reduce": "all_reduce",
    "allreduce": "all_reduce",
    "all_gather": "all_gather",
    "allgather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reducescatter": "reduce_scatter",
    "alltoallv": None,
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "broadcast": "broadcast",
    "sendrecv": "send_recv",
    "send_recv": "send_recv",
    "hypercube": None,
    "gather": None,
    "scatter": None,
    "reduce": None,
}
"""Names of tests, and the collective of ours that each times; longer names first."""

NAMED = re.compile(rf"\b({'|'.join(TESTS)})_perf\b")
QUARTILES = 1.349
"""Interquartile range of a normal distribution over its standard deviation."""


@dataclass(frozen=True, slots=True)
class Device:
    """One rank of a run."""

    rank: int
    group: int
    host: str
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """One timing. place: the line or key of the file; wrong: None where nobody checked."""

    place: str
    size: int
    in_place: bool
    seconds: float
    wrong: float | None
    spread: float | None
    repeats: int


@dataclass(slots=True)
class Run:
    """One start of one test. test: its name, None where the text does not say."""

    test: str | None = None
    devices: list[Device] = field(default_factory=list)
    repeats: int = 1
    ranks: int | None = None
    rows: list[Row] = field(default_factory=list)


def outcome(
    sources: Sequence[Source], runs: Sequence[tuple[Source, Run]], wanted: Wanted
) -> Outcome:
    """The profile of some runs. Raises InputError."""
    samples: list[CollectiveSample] = []
    notes: list[str] = []
    for source, run in runs:
        op, name = _op(source, run, wanted)
        if op is None:
            notes.append(f"{source.path}: {name} is no collective of a training step; left out")
            continue
        samples += _samples(source, run, op, wanted)
        notes += _doubts(source, run)
    if not samples:
        raise InputError("\n".join(notes) or f"{sources[0].path}: holds no results")
    machine = _machine(sources, [run for _, run in runs])
    profile = profile_of_collectives(machine, samples, measured_by("nccl-tests", sources))
    return Outcome(profile, tuple(dict.fromkeys(notes)))


def _op(source: Source, run: Run, wanted: Wanted) -> tuple[CollectiveOp | None, str]:
    name = run.test or wanted.op or _named(source.name.lower())
    if name is None:
        raise InputError(
            f"{source.path}: neither the text nor the file's name says which test this is; pass "
            f"--op all_reduce, all_gather, reduce_scatter, alltoall, broadcast or sendrecv"
        )
    if name not in TESTS:
        raise InputError(f"{source.path}: {name!r} is no test that is known: {', '.join(TESTS)}")
    return TESTS[name], name


def _named(text: str) -> str | None:
    """The test that a file's name names."""
    return next((name for name in TESTS if name in text.replace("-", "_")), None)


def _doubts(source: Source, run: Run) -> Iterator[str]:
    if any(row.wrong is None for row in run.rows if not row.in_place):
        yield f"{source.path}: the test did not check its results (-c 0)"


def _samples(
    source: Source, run: Run, op: CollectiveOp, wanted: Wanted
) -> Iterator[CollectiveSample]:
    ranks, groups, nodes = _spread(source, run, op, wanted)
    for row in run.rows:
        _check(source, row)
        unchecked = row.in_place and row.wrong is None  # all-to-all cannot run in place
        if row.size == 0 or (op == "all_to_all" and unchecked):
            continue
        yield CollectiveSample(
            op=op,
            backend="nccl",
            ranks=ranks,
            groups=groups,
            nodes=nodes,
            in_place=row.in_place,
            message_bytes=row.size,
            seconds=row.seconds,
            spread=row.spread,
            repeats=row.repeats,
        )


def _check(source: Source, row: Row) -> None:
    if row.wrong:
        raise InputError(
            f"{source.path}: {row.place}: {row.wrong:g} wrong values at {row.size} bytes; the "
            f"machine or its library computes wrongly, so its times are no measurement"
        )
    if row.size and row.seconds <= 0:
        raise InputError(
            f"{source.path}: {row.place}: a time of {row.seconds:g} s at {row.size} bytes; run "
            f"the test again with more iterations (-n)"
        )


def _spread(
    source: Source, run: Run, op: CollectiveOp, wanted: Wanted
) -> tuple[int, int, int | None]:
    """Ranks of a group, groups at once, and nodes of a group."""
    sizes: dict[int, list[Device]] = {}
    for device in run.devices:
        sizes.setdefault(device.group, []).append(device)
    groups = max(1, len(sizes))
    total = run.ranks or len(run.devices) or wanted.ranks
    if total is None:
        raise InputError(
            f"{source.path}: no line `#  Rank 0 ... device 0 ...`, so the number of ranks is not "
            f"known; keep the lines that begin with #, or pass --ranks N"
        )
    ranks = total // groups
    if ranks < 2:
        raise InputError(
            f"{source.path}: a group of {ranks} rank sends nothing; run with 2 or more"
        )
    hosts = [len({device.host for device in members}) for members in sizes.values()]
    nodes = max(hosts) if hosts else wanted.nodes
    if op == "send_recv":
        return 2, max(1, ranks // 2) if nodes == 1 else 1, min(nodes, 2) if nodes else None
    return ranks, groups, nodes


def _machine(sources: Sequence[Source], runs: Sequence[Run]) -> Machine:
    names = dict.fromkeys(d.name for run in runs for d in run.devices if d.name)
    if len(names) > 1:
        listed = ", ".join(str(source.path) for source in sources)
        raise InputError(
            f"{listed}: of different devices ({', '.join(names)}); import each machine apart"
        )
    most = max((_per_host(run) for run in runs), default=0)
    return Machine(kind="cuda", accelerator=next(iter(names), None), accelerators=most)


def _per_host(run: Run) -> int:
    """Ranks on each host, 0 where no host is named."""
    hosts = len({device.host for device in run.devices})
    return (run.ranks or len(run.devices)) // hosts if hosts else 0


def wrong_values(source: Source, place: str, count: object) -> InputError:
    """The error for results that the test found wrong."""
    return InputError(
        f"{source.path}: {place}: {count} values out of bounds; the machine or its library "
        f"computes wrongly, so its times are no measurement"
    )


def host_times(source: Source, place: str) -> InputError:
    """The error for times of the host."""
    return InputError(
        f"{source.path}: {place}: times of the host (cputime), not of the collective; run the "
        f"test without -C 1"
    )
