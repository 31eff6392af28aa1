"""Kineto: the Chrome traces of the PyTorch profiler (also .json.gz), one file per rank.

Of the events with a duration (ph X, ts and dur in microseconds):

    kernel           time on the GPU; of NCCL with args "Collective name", "dtype", "Group size",
                     "In msg nelems", "Out msg nelems", "Process Group Ranks", ...
    cpu_op           torch's operators (profiler.imports.kineto_operators)
    user_annotation  ProfilerStep#N: one step

A kernel of a collective begins when its rank arrives and ends when the last one is done, so its
time holds the wait for late ranks. Of the same collective in several ranks' traces the shortest
time counts (the last rank waits for nobody); over its repeats the lower quartile counts, and
spread is their interquartile range over the median. With a trace of one rank that still holds
some wait: more ranks, or nccl-tests, give better numbers.

The ranks of a group say over how many nodes it is spread (devices per node: --devices-per-node,
else the devices the trace lists). The other groups of its size are taken to run at the same time.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from planner.spec.documents import InputError
from planner.spec.observed import KernelFamily, KernelTime, TraceSummary
from planner.spec.profile import CollectiveOp, CollectiveSample, Machine, Profile
from profiler import fits
from profiler.imports import kineto_operators
from profiler.imports.fields import LARGEST
from profiler.imports.outcome import Outcome, Wanted, measured_by, today
from profiler.imports.source import Source

Event = Mapping[str, Any]

COLLECTIVES: dict[str, CollectiveOp] = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "all_reduce": "all_reduce",
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "all_gather": "all_gather",
    "allgather_coalesced": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "all_to_all": "all_to_all",
    "all_to_allv": "all_to_all",
    "alltoall_base": "all_to_all",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "_broadcast_oop": "broadcast",
    "send": "send_recv",
    "recv": "send_recv",
}
"""The names that torch gives collectives, and ours."""

ELEMENT_BYTES = {
    **dict.fromkeys(("double", "float64", "long", "int64"), 8),
    **dict.fromkeys(("float", "float32", "int", "int32"), 4),
    **dict.fromkeys(("half", "float16", "bfloat16", "short", "int16"), 2),
    **dict.fromkeys(("byte", "char", "bool", "uint8", "int8"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 1),
}
FAMILIES: tuple[tuple[KernelFamily, tuple[str, ...]], ...] = (
    ("collective", ("nccl", "rccl")),
    ("attention", ("flash", "fmha", "attention", "sdpa", "mha_")),
    ("matmul", ("gemm", "cutlass", "nvjet", "cublas", "matmul", "wgmma", "_mm_", "splitk", "Cijk")),
)
"""Kernels by parts of their names; the first that fits."""

NAMED_KERNELS = 40
"""Kernels that a summary names; the rest is `others`."""


class Key(NamedTuple):
    """What makes two collectives the same measurement."""

    op: CollectiveOp
    ranks: int
    nodes: int | None
    message_bytes: int


@dataclass(frozen=True, slots=True)
class Trace:
    """One rank's file. events: those with a duration. devices: of its node, 0 if not listed."""

    source: Source
    events: list[Event]
    rank: int | None
    world: int | None
    devices: int
    device_name: str | None
    memory_bytes: float | None


def read(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import traces of one or more ranks of one job. Raises InputError."""
    traces = [_trace(source) for source in sources]
    _check_ranks(traces)
    samples, left = _samples(traces, wanted)
    operators, doubts = kineto_operators.samples([trace.events for trace in traces])
    summary = _summary(traces)
    if not summary.kernels:
        raise InputError(
            f"{sources[0].path}: no kernels of a GPU; record the trace with "
            f"activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA] on a machine with GPUs"
        )
    profile = Profile(
        machine=_machine(traces, wanted),
        created=today(),
        operators=operators,
        collectives=samples,
        fits=fits.fit_all(samples),
        trace=summary,
        provenance=measured_by("Kineto trace of the PyTorch profiler", sources),
    )
    notes = [*left, *doubts, *_one_rank(traces, samples)]
    return Outcome(profile, tuple(notes))


def _one_rank(traces: Sequence[Trace], samples: Sequence[CollectiveSample]) -> Iterator[str]:
    if samples and len(traces) == 1:
        yield (
            f"{traces[0].source.path}: the trace of one rank: its collectives hold the wait for "
            f"late ranks; give the traces of the other ranks too"
        )


def _trace(source: Source) -> Trace:
    data = source.json
    top: Mapping[str, Any] = {"traceEvents": data} if isinstance(data, list) else data
    events = top.get("traceEvents") if isinstance(top, Mapping) else None
    if not isinstance(events, list):
        raise InputError(
            f"{source.path}: traceEvents: missing; give a trace that the PyTorch profiler exported "
            f"(export_chrome_trace, tensorboard_trace_handler)"
        )
    shared = _mapping(top.get("distributedInfo"))
    listed = top.get("deviceProperties")
    devices = [d for d in listed if isinstance(d, Mapping)] if isinstance(listed, list) else []
    first = devices[0] if devices else {}
    return Trace(
        source=source,
        events=[e for e in events if _is_span(source, e)],
        rank=_whole(shared.get("rank")),
        world=_whole(shared.get("world_size")),
        devices=len(devices),
        device_name=str(first["name"]) if "name" in first else None,
        memory_bytes=_number(first.get("totalGlobalMem")) or None,
    )


def _is_span(source: Source, event: object) -> bool:
    """An event with a duration. Raises InputError for times that are none."""
    if not isinstance(event, Mapping) or event.get("ph") != "X":
        return False
    begin, length = _number(event.get("ts")), _number(event.get("dur"))
    if begin is None or length is None or length < 0:
        raise InputError(
            f"{source.path}: traceEvents: {str(event.get('name'))[:80]!r}: ts={event.get('ts')!r}, "
            f"dur={event.get('dur')!r} is no time in microseconds; export the trace again"
        )
    return True


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) < LARGEST else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _check_ranks(traces: Sequence[Trace]) -> None:
    seen: dict[int, Trace] = {}
    for trace in traces:
        if trace.rank is None:
            continue
        if trace.rank in seen:
            raise InputError(
                f"{trace.source.path}: rank {trace.rank}, like {seen[trace.rank].source.path}; "
                f"give one trace per rank of one job"
            )
        seen[trace.rank] = trace


def _machine(traces: Sequence[Trace], wanted: Wanted) -> Machine:
    names = {trace.device_name for trace in traces if trace.device_name}
    if len(names) > 1:
        raise InputError(
            f"{traces[0].source.path}: traces of different devices ({', '.join(sorted(names))}); "
            f"import each machine apart"
        )
    return Machine(
        kind="cuda",
        accelerator=names.pop() if names else None,
        accelerators=_per_node(traces, wanted) or 0,
        accelerator_memory_bytes=traces[0].memory_bytes,
    )


def _per_node(traces: Sequence[Trace], wanted: Wanted) -> int | None:
    return wanted.devices_per_node or max(trace.devices for trace in traces) or None


def _samples(
    traces: Sequence[Trace], wanted: Wanted
) -> tuple[tuple[CollectiveSample, ...], list[str]]:
    """One sample per key, and what was left out."""
    times: dict[Key, dict[object, float]] = defaultdict(dict)
    unknown: dict[str, int] = defaultdict(int)
    per_node = _per_node(traces, wanted)
    for trace in traces:
        seen: dict[object, int] = defaultdict(int)
        for event in sorted(_of_nccl(trace), key=lambda e: float(e["ts"])):
            found = _key(event, per_node)
            if isinstance(found, str):
                unknown[found] += 1
                continue
            group = _group_name(event)
            seen[found, group] += 1
            occurrence = (group, seen[found, group])
            seconds = float(event["dur"]) * 1e-6
            before = times[found].get(occurrence, seconds)
            times[found][occurrence] = min(before, seconds)
    worlds = [trace.world for trace in traces if trace.world]
    made = [_sample(key, list(found.values()), worlds[:1]) for key, found in times.items()]
    where = traces[0].source.path
    notes = [f"{where}: {count} kernels left out: {why}" for why, count in unknown.items()]
    return tuple(s for s in made if s is not None), notes


def _of_nccl(trace: Trace) -> Iterator[Event]:
    for event in trace.events:
        if event.get("cat") == "kernel" and _family(str(event.get("name"))) == "collective":
            yield event


def _key(event: Event, per_node: int | None) -> Key | str:
    """What this kernel measures, or why it measures nothing of ours."""
    args = _mapping(event.get("args"))
    name = args.get("Collective name")
    if name is None:
        return "no `Collective name` (a torch older than 2.3, or a graph)"
    op = COLLECTIVES.get(str(name).lower())
    if op is None:
        return f"{name} is no collective of a training step"
    elements = [_whole(args.get(f"{side} msg nelems")) or 0 for side in ("In", "Out")]
    size = ELEMENT_BYTES.get(str(args.get("dtype")).lower())
    if size is None:
        return f"dtype {args.get('dtype')} is unknown"
    message = size * _full(op, *elements)
    if message <= 0:
        return f"{name} of no elements"
    ranks = _whole(args.get("Group size")) or 0
    if ranks < 2:
        return "a group of one rank"
    nodes = _nodes(args, per_node)
    return Key(op, ranks, nodes, message) if op != "send_recv" else _pair(ranks, nodes, message)


def _pair(ranks: int, nodes: int | None, message: int) -> Key:
    """A send within a group: over how many nodes is known only of groups of two or of one node."""
    known = nodes if nodes == 1 or ranks == 2 else None
    return Key("send_recv", 2, known, message)


def _full(op: CollectiveOp, inside: int, outside: int) -> int:
    """Elements of the full tensor."""
    if op in ("all_gather", "reduce_scatter"):
        return max(inside, outside)
    return inside or outside


def _nodes(args: Mapping[str, Any], per_node: int | None) -> int | None:
    """Over how many nodes a group is spread; None where its ranks are not all listed."""
    ranks = args.get("Process Group Ranks")
    if isinstance(ranks, str):
        try:
            ranks = json.loads(ranks)
        except json.JSONDecodeError:
            return None
    if not per_node or not isinstance(ranks, list) or len(ranks) != args.get("Group size"):
        return None
    if not all(isinstance(rank, int) for rank in ranks):
        return None
    return len({rank // per_node for rank in ranks})


def _group_name(event: Event) -> str:
    args = _mapping(event.get("args"))
    return f"{args.get('Process Group Name')} {args.get('Process Group Ranks')}"


def _sample(key: Key, seconds: Sequence[float], worlds: Sequence[int]) -> CollectiveSample | None:
    times = [value for value in seconds if value > 0]
    if not times:
        return None
    low, middle, high = _quartiles(times)
    return CollectiveSample(
        op=key.op,
        backend="nccl",
        ranks=key.ranks,
        groups=max(1, worlds[0] // key.ranks) if worlds else 1,
        nodes=key.nodes,
        message_bytes=key.message_bytes,
        seconds=low,
        spread=(high - low) / middle if len(times) > 1 else None,
        repeats=len(times),
    )


def _quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    if len(times) == 1:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


def _family(name: str) -> KernelFamily:
    lower = name.lower()
    return next(
        (family for family, parts in FAMILIES if any(part.lower() in lower for part in parts)),
        "other",
    )


def _summary(traces: Sequence[Trace]) -> TraceSummary:
    launches: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for trace in traces:
        for event in trace.events:
            if event.get("cat") == "kernel":
                name = str(event.get("name"))[:200]
                launches[name] += 1
                seconds[name] += float(event["dur"]) * 1e-6
    longest = sorted(seconds, key=lambda name: (-seconds[name], name))
    rest = longest[NAMED_KERNELS:]
    kernels = [
        KernelTime(name=n, family=_family(n), launches=launches[n], seconds=seconds[n])
        for n in longest[:NAMED_KERNELS]
    ]
    if rest:
        kernels.append(
            KernelTime(
                name="others",
                family="other",
                launches=sum(launches[n] for n in rest),
                seconds=sum(seconds[n] for n in rest),
            )
        )
    return TraceSummary(ranks=len(traces), step_seconds=_steps(traces), kernels=tuple(kernels))


def _steps(traces: Iterable[Trace]) -> tuple[float, ...]:
    """Seconds of every marked step, each the slowest rank's, in the order of their numbers."""
    slowest: dict[int, float] = {}
    for trace in traces:
        for event in trace.events:
            name = str(event.get("name"))
            number = name.removeprefix("ProfilerStep#")
            if number == name or not number.isdecimal() or _on_gpu(event):
                continue
            seconds = float(event["dur"]) * 1e-6
            slowest[int(number)] = max(slowest.get(int(number), 0.0), seconds)
    return tuple(slowest[number] for number in sorted(slowest))


def _on_gpu(event: Event) -> bool:
    """Newer traces repeat the marks on the GPU's streams."""
    return str(event.get("cat", "")).startswith("gpu_")
