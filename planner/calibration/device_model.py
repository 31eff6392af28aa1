"""Device model: seconds of measured operators as functions of a device's constants, vectorised.

The roofline of planner.cost.operators, which is its oracle in the tests, over all samples at once:

    seconds = launch + max( arithmetic, bytes / (bandwidth * memory_efficiency) )
    arithmetic, products    sum over parts of flops * (k + depth) / (k * filled * best)
    arithmetic, attention   flops * kernel_share / (peak * attention_efficiency)

best = matmul_efficiency times what planner.cost.operators.best_flops says at efficiency 1; filled:
tile and wave quantisation (planner.cost.matmul), 1 without multiprocessors, where depth is 0 too.
The bytes of a loss are scaled by loss_passes. A constant that is not given is the device's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.cost.matmul import DEPTH, filled_share
from planner.cost.operators import (
    ALIGNMENT,
    LOSSES,
    MISALIGNED,
    PLAIN_LOSS_PASSES,
    best_flops,
    peak_flops,
)
from planner.graph.operator import Operator
from planner.graph.single import single_operator
from planner.spec.cluster import Accelerator
from planner.spec.profile import OperatorSample, Phase
from planner.spec.workload import stored_dtype

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Work:
    """What one sample asks of a device: products (seconds at full rate, seconds per element of
    depth), the attention core's seconds at its peak, seconds of memory, and whether it is a loss.
    """

    product: float
    per_depth: float
    attention: float
    memory: float
    loss: bool


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """Arrays of Work over samples [n], and the constants of the device where none are given."""

    product: Floats
    per_depth: Floats
    attention: Floats
    memory: Floats
    loss: NDArray[np.bool_]
    defaults: Mapping[str, float]

    @classmethod
    def of(cls, samples: Sequence[OperatorSample], device: Accelerator, passes: float) -> Self:
        """The model of samples that `can_model` accepts. passes: of the runtime's loss."""
        works = [_work(sample, device) for sample in samples]
        depth = DEPTH if device.matmul_depth is None else device.matmul_depth
        return cls(
            product=_floats(work.product for work in works),
            per_depth=_floats(work.per_depth for work in works),
            attention=_floats(work.attention for work in works),
            memory=_floats(work.memory for work in works),
            loss=np.array([work.loss for work in works], dtype=np.bool_),
            defaults={
                "matmul_efficiency": device.matmul_efficiency,
                "attention_efficiency": device.attention_efficiency,
                "memory_efficiency": device.memory_efficiency,
                "launch_seconds": device.launch_seconds,
                "matmul_depth": depth,
                "loss_passes": passes,
            },
        )

    def seconds(self, values: Mapping[str, float]) -> Floats:
        """Seconds of every sample under these constants."""
        of = {**self.defaults, **values}
        products = (self.product + of["matmul_depth"] * self.per_depth) / of["matmul_efficiency"]
        passes = np.where(self.loss, of["loss_passes"] / PLAIN_LOSS_PASSES, 1.0)
        memory = self.memory * passes / of["memory_efficiency"]
        arithmetic = products + self.attention / of["attention_efficiency"]
        result: Floats = of["launch_seconds"] + np.maximum(arithmetic, memory)
        return result


def _floats(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def can_model(sample: OperatorSample, device: Accelerator) -> bool:
    """Whether the model says something of a sample on this device."""
    known = sample.dtype in device.peak_flops and stored_dtype(sample.dtype) in device.peak_flops
    bounded = device.memory_bandwidth_bytes_per_second is not None
    return known and bounded and single_operator(sample.kind, sample.dims, "bf16") is not None


def _work(sample: OperatorSample, device: Accelerator) -> Work:
    stored, phase = stored_dtype(sample.dtype), sample.phase
    operator = single_operator(sample.kind, sample.dims, stored)
    bandwidth = device.memory_bandwidth_bytes_per_second
    assert operator is not None
    assert bandwidth is not None
    product, per_depth = _products(operator, sample, device)
    return Work(
        product=product,
        per_depth=per_depth,
        attention=_attention(operator, phase, peak_flops(device, stored)),
        memory=operator.bytes_moved(phase) / bandwidth,
        loss=sample.kind in LOSSES,
    )


def _products(
    operator: Operator, sample: OperatorSample, device: Accelerator
) -> tuple[float, float]:
    """Seconds of the products at the full rate, and what an element of depth adds."""
    if operator.kind != "linear":
        return 0.0, 0.0
    best = best_flops(device.replace(matmul_efficiency=1.0), sample.dtype)
    m, k, n = (sample.dims[name] for name in ("m", "k", "n"))
    parts = [(m, n, k)] if sample.phase == "forward" else [(m, k, n), (k, n, m)]
    cores, flops = device.multiprocessors, 2.0 * m * n * k
    if cores is None:
        return len(parts) * flops / best, 0.0
    each = [(flops / best / filled_share(rows, columns, cores), k) for rows, columns, k in parts]
    return sum(seconds for seconds, _ in each), sum(seconds / k for seconds, k in each)


def _attention(operator: Operator, phase: Phase, peak: float) -> float:
    if operator.kind != "attention":
        return 0.0
    share = 1.0 if _stores_scores(operator) else operator.kernel_share
    share /= MISALIGNED if dict(operator.dims)["head_dim"] % ALIGNMENT else 1.0
    return operator.flops(phase) * share / peak


def _stores_scores(operator: Operator) -> bool:
    """A core that stores its scores does not compute them again in the backward."""
    return operator.input_gradient_flops == 2 * operator.forward_flops
