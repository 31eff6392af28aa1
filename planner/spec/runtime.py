"""Runtime: the software that will execute a plan, described by its traits."""

from typing import Literal

import pydantic

from planner.spec.documents import Document
from planner.spec.provenance import Provenance

Schedule = Literal["gpipe", "1f1b"]
Recompute = Literal["none", "selective", "full"]
Axis = Literal["tp", "cp", "ep", "dp", "pp"]


AXES: tuple[Axis, ...] = ("tp", "cp", "ep", "dp", "pp")


def check_axis_order(value: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return the order. Raises ValueError unless it names every axis once."""
    if sorted(value) != sorted(AXES):
        raise ValueError(f"must name each of {', '.join(AXES)} once, innermost first")
    return value


class Runtime(Document):
    """What a runtime overlaps, shards and keeps, and what it can run at all.

    schedules, zero_stages, recompute: what it offers; a plan outside them is never proposed.
    sequence_parallel: shards the activations between tp blocks along the sequence.
    overlaps_dp: reduces gradients while the last backward still computes.
    gradient_dtype: "fp32" accumulates in fp32, "same" in the workload's dtype.
    keeps_low_precision_gradients: holds the 16-bit gradients beside the fp32 accumulator.
    master_weights: keeps an fp32 copy of half-precision weights in the optimiser.
    flash_attention: never stores the score matrix.
    recompute_stops_early: recomputation ends once the last saved tensor is back, so the last
    matrix product of a layer is not done again.
    axis_order: innermost axis first; ranks that differ only in the first axis are neighbours.
    layer_host_seconds: the floor the host needs to launch one layer forward and backward.
    context_bytes: device memory outside the tensor allocator. allocator_slack: fraction of the
    tensor bytes that rounding and fragmentation may add.
    """

    SCHEMA = "runtime/1"

    name: str
    description: str = ""
    schedules: tuple[Schedule, ...]
    zero_stages: tuple[int, ...]
    recompute: tuple[Recompute, ...]
    sequence_parallel: bool
    overlaps_dp: bool
    gradient_dtype: Literal["fp32", "same"]
    keeps_low_precision_gradients: bool = False
    master_weights: bool
    flash_attention: bool
    recompute_stops_early: bool
    axis_order: tuple[Axis, ...] = AXES
    layer_host_seconds: float = pydantic.Field(default=0.0, ge=0)
    step_seconds: float = pydantic.Field(default=0.0, ge=0)
    context_bytes: float = pydantic.Field(default=0.0, ge=0)
    allocator_slack: float = pydantic.Field(default=0.0, ge=0)
    provenance: dict[str, Provenance] = {}

    @pydantic.field_validator("axis_order")
    @classmethod
    def _every_axis_once(cls, value: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return check_axis_order(value)
