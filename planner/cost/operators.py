"""Operator time: measured, else interpolated from measurements, else a roofline.

Measured: the profile holds the same kind, dims, dtype and phase.
Interpolated (fitted): from the nearest measured shapes of the same kind, phase and dtype,

    t(x) = exp( sum_i w_i * log(t_i * work(x) / work(x_i)) ),   w_i ~ 1 / distance(x, x_i)**2,

distance in the logarithms of the dims; work(x) is proportional to the FLOPs (matrix products,
attention) or the elements touched, so that only the efficiency is interpolated.
Roofline (assumed): t = launch + max(flops / (peak * efficiency), bytes / (bandwidth *
efficiency)), with the accelerator's catalogued efficiencies (Williams et al. 2009). A flash
kernel skips the keys that the mask hides (`Operator.kernel_share`); a materialised one does not.
Matrix products reach the share of the peak that their shape leaves (planner.cost.matmul).
With fp8 or fp4 the products of layers run in it; attention, the projection to the vocabulary (a
plain product in Megatron-core, Transformer Engine's users and torchtitan; NVFP4 demands it)
and everything kept stay in 16 bits. What a product multiplies is brought to the format first
(assumed): a kernel reads 2 bytes an element and writes it twice, the second transposed, for these
products read both operands along k; the input once for all products that share it, the output's
gradient in the backward, weights once a step (not counted). fp4's scales of 16 elements stand on
one of the whole tensor, so that a kernel reads it once before (NVIDIA 2025, arXiv 2509.25149, which
rotates what the weight gradient multiplies inside the same two kernels).
The roofline leaves out the cost of cold caches.
"""

import functools
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from planner.cost.column import larger
from planner.cost.matmul import DEPTH, share_of_peak, shares_of_peak
from planner.graph.operator import Dims, Operator
from planner.graph.parts.attention import CORE_KINDS
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import InputError
from planner.spec.profile import OperatorSample, Phase, Profile
from planner.spec.provenance import Birth
from planner.spec.workload import FP4_BYTES, stored_dtype

ALIGNMENT, MISALIGNED = 8, 1 / 6
"""Tensor cores want 8 elements of 16 bits in a row; other head sizes run on slower units.
Fitted: GPT runs of bigscience_bloom_prequel.csv with head_dim 108 against 216, by hand."""

LOSSES = ("cross_entropy", "parallel_cross_entropy")
PLAIN_LOSS_PASSES = 2.0
"""Passes over fp32 logits that the graph's 8 bytes per logit stand for, in 16 bits."""

PRODUCTS = ("linear", "grouped_linear")
"""Kinds that run in fp8 or fp4 where that is asked for."""

CAST_BYTES = {"fp8": 2 + 2 * 1.0, "fp4": 2 + 2 + 2 * FP4_BYTES}
"""Of an element that is brought from 16 bits to the format (see the top of the file)."""

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

    def __init__(
        self,
        cluster: ClusterSpec,
        dtype: str,
        flash: bool,
        profile: Profile | None,
        loss_passes: float = PLAIN_LOSS_PASSES,
    ):
        self.flash = flash
        self._roofline = Roofline(cluster.accelerator, dtype, flash, loss_passes)
        self._samples: dict[tuple[str, Phase], list[OperatorSample]] = defaultdict(list)
        for sample in profile.operators if profile else ():
            if sample.dtype == dtype:
                self._samples[sample.kind, sample.phase].append(sample)
        self._known: dict[tuple[str, Dims, Phase, int, bool, bool], Estimate] = {}

    def estimate(self, operator: Operator, phase: Phase) -> Estimate:
        """Seconds of one phase of an operator, the whole backward together."""
        if any(isinstance(value, np.ndarray) for _, value in operator.dims):
            return self._estimate(operator, phase)
        told = operator.saved_bytes > 0, _in_16_bits(operator)
        key = (operator.kind, operator.dims, phase, operator.bytes_moved(phase), *told)
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
        roofline = self._roofline
        seconds = roofline.seconds(operator, phase) + roofline.cast_seconds(operator, phase)
        return Estimate(seconds, "assumed")


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

    def __init__(self, accelerator: Accelerator, dtype: str, flash: bool, loss_passes: float):
        self.accelerator, self.dtype, self.flash = accelerator, dtype, flash
        self.loss = loss_passes / PLAIN_LOSS_PASSES

    def seconds(self, operator: Operator, phase: Phase) -> float:
        """Launch plus the slower of arithmetic and memory."""
        device, moved = self.accelerator, 1.0 * operator.bytes_moved(phase)
        bandwidth = device.memory_bandwidth_bytes_per_second
        if bandwidth is None:
            raise InputError(
                f"accelerator {device.name!r}: memory_bandwidth_bytes_per_second is empty; "
                f"add it in the cluster file or take a profile"
            )
        if operator.kind in LOSSES:
            moved *= self.loss
        memory = moved / (bandwidth * device.memory_efficiency)
        seconds: float = larger(self._arithmetic(operator, phase), memory)
        return device.launch_seconds + seconds

    def cast_seconds(self, operator: Operator, phase: Phase) -> float:
        """What a product takes to bring its operands to fp8 or fp4, none in other formats."""
        if self.dtype not in CAST_BYTES or _in_16_bits(operator):
            return 0.0
        dims, device = dict(operator.dims), self.accelerator
        if phase == "forward":
            elements = 1.0 * dims["m"] * dims["k"] * (operator.saved_bytes > 0)
        else:
            elements = 1.0 * dims["m"] * dims["n"]
        bandwidth = device.memory_bandwidth_bytes_per_second or math.inf
        return elements * CAST_BYTES[self.dtype] / (bandwidth * device.memory_efficiency)

    def _arithmetic(self, operator: Operator, phase: Phase) -> float:
        if not operator.flops(phase):
            return 0.0
        if operator.kind in CORE_KINDS:
            share = operator.kernel_share if self.flash else 1.0
            peak = peak_flops(self.accelerator, stored_dtype(self.dtype))
            share /= MISALIGNED if dict(operator.dims)["head_dim"] % ALIGNMENT else 1.0
            return operator.flops(phase) * share / (peak * self.accelerator.attention_efficiency)
        best = self._best_in_16_bits if _in_16_bits(operator) else self._best
        dims = dict(operator.dims)
        groups = dims.get("groups", 1)
        m, k, n = larger(1, dims["m"] // groups), dims["k"], dims["n"]
        if phase == "forward":
            return operator.forward_flops / (best * self._share(m, n, k, groups))
        inputs = operator.input_gradient_flops / self._share(m, k, n, groups)
        weights = operator.weight_gradient_flops / self._share(k, n, m, groups)
        return (inputs + weights) / best

    @functools.cached_property
    def _best(self) -> float:
        return best_flops(self.accelerator, self.dtype)

    @functools.cached_property
    def _best_in_16_bits(self) -> float:
        return best_flops(self.accelerator, stored_dtype(self.dtype))

    def _share(self, m: int, n: int, k: int, groups: int) -> float:
        cores = self.accelerator.multiprocessors
        if cores is None:
            return 1.0
        columns = any(isinstance(each, np.ndarray) for each in (m, n, k, groups))
        depth = self.accelerator.matmul_depth
        deep = DEPTH if depth is None else depth
        one = shares_of_peak if columns else share_of_peak
        share: float = one(m, n * groups, k, cores, deep)
        return share


def _in_16_bits(operator: Operator) -> bool:
    """Whether it keeps the format of what is stored: no product, or one to the vocabulary."""
    if operator.kind not in PRODUCTS:
        return True
    return any(split.meaning == "vocabulary" for split in operator.splits)


def best_flops(accelerator: Accelerator, dtype: str) -> float:
    """The rate that a large, well-shaped matrix product reaches.

    matmul_efficiency is that of 16 bits; where the catalog has the best published products of both
    formats, another format's share of its own peak differs as theirs do.
    """
    reached = {str(name): rate for name, rate in accelerator.matmul_flops.items()}
    sixteen = next((name for name in ("bf16", "fp16") if name in reached), None)
    best = peak_flops(accelerator, dtype) * accelerator.matmul_efficiency
    if sixteen is None or dtype not in reached:
        return best
    shares = [reached[name] / peak_flops(accelerator, name) for name in (dtype, sixteen)]
    return best * shares[0] / shares[1]


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
