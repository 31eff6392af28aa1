"""Measured: what running a plan showed."""

import pydantic

from planner.spec.cluster import Backend
from planner.spec.documents import Document, Frozen
from planner.spec.layout import Layout
from planner.spec.profile import Machine
from planner.spec.timeline import Timeline


class StepTimes(Frozen):
    """Wall time of the steps after warm-up, each the slowest rank's."""

    median: float = pydantic.Field(gt=0)
    min: float = pydantic.Field(gt=0)
    max: float = pydantic.Field(gt=0)
    steps: tuple[float, ...]


class Measured(Document):
    """One run of a plan.

    peak_bytes by rank: bytes held by tensors at their highest (CUDA allocator on GPUs, live
    tensor storages on CPUs). resident_bytes by rank: the process as the operating system
    sees it. loss and gradient_norm per step, warm-up included.

    emulated_rank: only this rank was run, alone, and its messages were waits of predicted length,
    waited_seconds of every step (`meshwright run --emulate-rank`); it has no loss.
    """

    SCHEMA = "measured/1"

    layout: Layout
    layer_counts: tuple[int, ...]
    step_seconds: StepTimes
    peak_bytes: dict[int, float]
    resident_bytes: dict[int, float]
    loss: tuple[float, ...]
    gradient_norm: tuple[float, ...]
    world_size: int = pydantic.Field(ge=1)
    backend: Backend
    warmup_steps: int = pydantic.Field(ge=0)
    machine: Machine
    timeline: Timeline | None = None
    emulated_rank: int | None = None
    waited_seconds: float | None = None
