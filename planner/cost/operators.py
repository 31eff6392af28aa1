"""Operator time: measured, else interpolated from measurements, else a roofline.

Measured: the profile holds the same kind, dims, dtype and phase.
Interpolated (fitted): from the nearest measured shapes of the same kind, phase and dtype,

    t(x) = exp( sum_i w_i * log(t_i * work(x) / work(x_i)) ),   w_i ~ 1 / distance(x, x_i)**2,

distance in the logarithms of the dims; work(x) is proportional to the FLOPs (matrix products,
attention) or the elements touched, so that only the efficiency is interpolated.
Roofline (assumed): t = launch + max(flops / (peak * efficiency), bytes / (bandwidth *
efficiency)), with the accelerator's catalogued efficiencies (Williams et al. 2009). A causal
flash kernel does half of the square that `Operator` counts; a materialised one does all of it.
It leaves out tile and wave quantisation and the cost of cold caches.
"""

import math
from collections import defaultdict
from typing import NamedTuple

from planner.graph.operator import Operator
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import InputError
from planner.spec.profile import OperatorSample, Phase, Profile
from planner.spec.provenance import Birth

NEIGHBOURS = 4
"""Measured shapes that an interpolation rests on; more would average over unlike shapes."""


class Estimate(NamedTuple):
    """Seconds and how they are known."""

    seconds: float
    birth: Birth


class OperatorTimes:
    """Times of operators on one cluster's device in one dtype.

    Raises InputError when the accelerator has no peak for the dtype and nothing is measured.
    """

    def __init__(self, cluster: ClusterSpec, dtype: str, flash: bool, profile: Profile | None):
        self.flash = flash
        self._roofline = Roofline(cluster.accelerator, dtype, flash)
        self._samples: dict[tuple[str, Phase], list[OperatorSample]] = defaultdict(list)
        for sample in profile.operators if profile else ():
            if sample.dtype == dtype:
                self._samples[sample.kind, sample.phase].append(sample)
        self._known: dict[tuple[str, tuple[tuple[str, int], ...], Phase], Estimate] = {}

    def estimate(self, operator: Operator, phase: Phase) -> Estimate:
        """Seconds of one phase of an operator, the whole backward together."""
        key = (operator.kind, operator.dims, phase)
        if key not in self._known:
            self._known[key] = self._estimate(operator, phase)
        return self._known[key]

    def _estimate(self, operator: Operator, phase: Phase) -> Estimate:
        samples = self._samples.get((operator.kind, phase), [])
        dims = dict(operator.dims)
        for sample in samples:
            if sample.dims == dims:
                return Estimate(sample.seconds, "measured")
        if samples:
            return Estimate(interpolate(samples, dims), "fitted")
        if not operator.flops(phase) and not operator.bytes_moved(phase):
            return Estimate(0.0, "assumed")
        return Estimate(self._roofline.seconds(operator, phase), "assumed")


def interpolate(samples: list[OperatorSample], dims: dict[str, int]) -> float:
    """Seconds at `dims` from measured samples of one kind and phase."""
    nearest = sorted(samples, key=lambda sample: _distance(sample.dims, dims))[:NEIGHBOURS]
    weights = [1.0 / (_distance(sample.dims, dims) ** 2 + 1e-9) for sample in nearest]
    logs = [
        math.log(sample.seconds * work(sample.kind, dims) / work(sample.kind, sample.dims))
        for sample in nearest
    ]
    mean = sum(w * value for w, value in zip(weights, logs, strict=True)) / sum(weights)
    return math.exp(mean)


def work(kind: str, dims: dict[str, int]) -> float:
    """What the time of a kind is proportional to when its efficiency stays the same."""
    if kind == "attention":
        return dims["batch"] * dims["seq"] ** 2 * dims["heads"] * dims["head_dim"]
    if kind == "embedding":
        return (dims["rows"] + dims["vocab"]) * dims["width"]
    if kind == "position_embedding":
        return (dims["rows"] + dims["positions"]) * dims["width"]
    return math.prod(value for name, value in dims.items() if name != "bias")


def _distance(one: dict[str, int], other: dict[str, int]) -> float:
    return math.sqrt(sum((math.log1p(one[n]) - math.log1p(other[n])) ** 2 for n in one))


class Roofline:
    """The assumed time of an operator on a device nobody profiled."""

    def __init__(self, accelerator: Accelerator, dtype: str, flash: bool):
        self.accelerator = accelerator
        self.flash = flash
        self.dtype = dtype

    def seconds(self, operator: Operator, phase: Phase) -> float:
        """Launch plus the slower of arithmetic and memory."""
        device = self.accelerator
        attention = operator.kind == "attention"
        flops = operator.flops(phase) * (0.5 if attention and self.flash else 1.0)
        efficiency = device.attention_efficiency if attention else device.matmul_efficiency
        arithmetic = flops / (self._peak() * efficiency) if flops else 0.0
        bandwidth = device.memory_bandwidth_bytes_per_second
        if bandwidth is None:
            raise InputError(
                f"accelerator {device.name!r}: memory_bandwidth_bytes_per_second is empty; "
                f"add it in the cluster file or take a profile"
            )
        memory = operator.bytes_moved(phase) / (bandwidth * device.memory_efficiency)
        return device.launch_seconds + max(arithmetic, memory)

    def _peak(self) -> float:
        return peak_flops(self.accelerator, self.dtype)


def peak_flops(accelerator: Accelerator, dtype: str) -> float:
    """Peak dense FLOP/s of a dtype. Raises InputError when the catalog has none."""
    peak = {str(k): v for k, v in accelerator.peak_flops.items()}.get(dtype)
    if peak is None:
        known = ", ".join(accelerator.peak_flops) or "none"
        raise InputError(
            f"accelerator {accelerator.name!r}: no peak FLOP/s for dtype {dtype!r} (known: "
            f"{known}); choose another --dtype, or add it in the cluster file, or take a profile"
        )
    return peak
