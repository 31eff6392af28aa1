"""Operators of a Kineto trace: matrix products and attention, where shapes were recorded.

A kernel carries the "External id" of the innermost cpu_op that launched it; an operator's time is
that of all kernels launched inside it. With record_shapes=True a cpu_op has "Input Dims", "Input
type" and "Concrete Inputs":

    aten::addmm (n) (m,k) (k,n)          linear with a bias
    aten::mm (m,k) (k,n)                 linear
    aten::_scaled_dot_product_*, flash_attn::_flash_attn_forward: q, k, v

The backward of an operator is the range `autograd::engine::evaluate_function: ...` with its
"Sequence number". It holds both gradients, but not their accumulation, which is another range.
Products inside such a range are no forwards. A range that holds more than its own two products
runs a forward again (recomputation) and is left out.

seconds is the median over the repeats, spread the interquartile range over it.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.spec.profile import OperatorSample
from planner.spec.workload import Dtype, Phase

Event = Mapping[str, Any]
Dims = tuple[tuple[str, int], ...]

BACKWARD = "autograd::engine::evaluate_function:"
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
SDPA = "aten::_scaled_dot_product_"
CAUSAL_AT = {
    "aten::_scaled_dot_product_flash_attention": 4,
    "aten::_scaled_dot_product_efficient_attention": 6,
    "aten::_scaled_dot_product_cudnn_attention": 6,
    "flash_attn::_flash_attn_forward": 5,
}
"""Attention kernels of torch and flash-attn, and where is_causal stands among their inputs."""
DTYPES: dict[str, Dtype] = {
    "double": "fp64",
    "float": "fp32",
    "c10::BFloat16": "bf16",
    "c10::Half": "fp16",
}


@dataclass(eq=False, slots=True)
class Range:
    """A cpu_op. seconds: of the kernels launched inside it, nested ones too."""

    event: Event
    inside: "Range | None"
    seconds: float = 0.0
    products: int = 0

    @property
    def name(self) -> str:
        """The operator's name."""
        return str(self.event.get("name"))

    @property
    def in_backward(self) -> bool:
        """Whether autograd runs it."""
        above = self.inside
        while above is not None:
            if above.name.startswith(BACKWARD):
                return True
            above = above.inside
        return False


@dataclass(frozen=True, slots=True)
class Shape:
    """An operator of ours: kind, dims and dtype."""

    kind: str
    dims: Dims
    dtype: Dtype


def samples(traces: Sequence[Sequence[Event]]) -> tuple[tuple[OperatorSample, ...], list[str]]:
    """One sample per operator and phase over the traces of all ranks, and what was left out."""
    times: dict[tuple[Shape, Phase], list[float]] = defaultdict(list)
    notes: list[str] = []
    recomputing = 0
    for events in traces:
        ranges = _ranges(events)
        forwards = dict(_forwards(ranges))
        for shape, found in forwards.values():
            times[shape, "forward"].append(found.seconds)
        for sequence, found in _backwards(ranges):
            if sequence not in forwards:
                continue
            if found.products > 2:
                recomputing += 1
                continue
            times[forwards[sequence][0], "backward"].append(found.seconds)
    if recomputing:
        notes.append(f"{recomputing} backwards left out: they run forwards again (recomputation)")
    made = [_sample(shape, phase, found) for (shape, phase), found in times.items()]
    if not made:
        notes.append(
            "no operators: record with ProfilerActivity.CPU and record_shapes=True to get the "
            "times of matrix products and attention"
        )
    return tuple(made), notes


def _sample(shape: Shape, phase: Phase, times: Sequence[float]) -> OperatorSample:
    middle = statistics.median(times)
    spread = None
    if len(times) > 1:
        low, _, high = statistics.quantiles(times, n=4, method="inclusive")
        spread = (high - low) / middle
    return OperatorSample(
        kind=shape.kind,
        dims=dict(shape.dims),
        dtype=shape.dtype,
        phase=phase,
        seconds=middle,
        spread=spread,
        repeats=len(times),
    )


def _ranges(events: Sequence[Event]) -> list[Range]:
    """The cpu_ops, nested by time on their threads, with the seconds of their kernels."""
    ranges = _nested([e for e in events if e.get("cat") == "cpu_op"])
    by_id = {_identity(found.event): found for found in ranges}
    for event in events:
        if event.get("cat") == "kernel" and (owner := by_id.get(_identity(event))) is not None:
            _climb(owner, float(event["dur"]) * 1e-6)
    for found in ranges:
        if found.name in PRODUCTS:
            above = found.inside
            while above is not None:
                above.products += 1
                above = above.inside
    return ranges


def _climb(found: Range | None, seconds: float) -> None:
    while found is not None:
        found.seconds += seconds
        found = found.inside


def _identity(event: Event) -> object:
    args = event.get("args")
    args = args if isinstance(args, Mapping) else {}
    number = args.get("External id", args.get("external id"))
    return number if isinstance(number, int) else object()


def _nested(operators: Sequence[Event]) -> list[Range]:
    threads: dict[str, list[Event]] = defaultdict(list)
    for event in operators:
        threads[f"{event.get('pid')} {event.get('tid')}"].append(event)
    found: list[Range] = []
    for events in threads.values():
        events.sort(key=lambda e: (float(e["ts"]), -float(e["dur"])))
        open_ranges: list[Range] = []
        for event in events:
            while open_ranges and _end(open_ranges[-1].event) <= float(event["ts"]):
                open_ranges.pop()
            open_ranges.append(Range(event, open_ranges[-1] if open_ranges else None))
            found.append(open_ranges[-1])
    return found


def _end(event: Event) -> float:
    return float(event["ts"]) + float(event["dur"])


def _forwards(ranges: Sequence[Range]) -> Iterator[tuple[object, tuple[Shape, Range]]]:
    """(sequence number, (shape, range)) of operators that are known and run on the GPU."""
    for found in ranges:
        if found.seconds > 0 and not found.in_backward:
            shape = _shape(found.event)
            if shape is not None:
                sequence = _args(found.event).get("Sequence number")
                yield sequence if isinstance(sequence, int) else object(), (shape, found)


def _backwards(ranges: Sequence[Range]) -> Iterator[tuple[int, Range]]:
    for found in ranges:
        sequence = _args(found.event).get("Sequence number")
        if found.name.startswith(BACKWARD) and isinstance(sequence, int) and found.seconds > 0:
            yield sequence, found


def _args(event: Event) -> Mapping[str, Any]:
    args = event.get("args")
    return args if isinstance(args, Mapping) else {}


def _shape(event: Event) -> Shape | None:
    """The operator of ours that a cpu_op is, if its shapes were recorded and fit."""
    name, args = str(event.get("name")), _args(event)
    dims, types = args.get("Input Dims"), args.get("Input type")
    if not isinstance(dims, list) or not isinstance(types, list) or not types:
        return None
    dtype = DTYPES.get(str(types[0]))
    if dtype is None:
        return None
    found = _product(name, dims) or _attention(name, dims, args.get("Concrete Inputs"))
    return None if found is None else Shape(found[0], found[1], dtype)


def _product(name: str, dims: Sequence[Any]) -> tuple[str, Dims] | None:
    if name == "aten::addmm" and len(dims) > 2 and _is_sizes(dims[0], 1):
        bias, one, other = 1, dims[1], dims[2]
    elif name == "aten::mm" and len(dims) > 1:
        bias, one, other = 0, dims[0], dims[1]
    else:
        return None
    if not (_is_sizes(one, 2) and _is_sizes(other, 2) and one[1] == other[0]):
        return None
    return "linear", _sorted(m=one[0], k=one[1], n=other[1], bias=bias)


def _attention(name: str, dims: Sequence[Any], concrete: object) -> tuple[str, Dims] | None:
    place = CAUSAL_AT.get(name)
    if place is None or not isinstance(concrete, list) or len(concrete) <= place:
        return None
    if len(dims) < 3 or not all(_is_sizes(sizes, 4) for sizes in dims[:3]):
        return None
    heads_at, seq_at = (1, 2) if name.startswith(SDPA) else (2, 1)
    q, k, v = dims[:3]
    causal = str(concrete[place]) == "True"
    shape = {
        "batch": q[0],
        "seq": q[seq_at],
        "heads": q[heads_at],
        "kv_heads": k[heads_at],
        "head_dim": q[3],
    }
    if causal and q[seq_at] == k[seq_at] and q[3] == v[3]:
        return "attention", _sorted(**shape)
    keys = k[seq_at]
    more = {"keys": keys, "value_dim": v[3], "causal": int(causal), "window": keys}
    return "general_attention", _sorted(**shape, **more)


def _is_sizes(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(size, int) and size > 0 for size in value)
    )


def _sorted(**sizes: int) -> Dims:
    return tuple(sorted(sizes.items()))
