"""Observed: what other tools measured of whole layers and whole steps.

No operator or collective of ours has these times, so they stand beside the profile's samples:
to calibrate with, and to hold predictions against.
"""

from typing import Literal

import pydantic

from planner.spec.documents import Frozen
from planner.spec.workload import Dtype, Phase

KernelFamily = Literal["matmul", "attention", "collective", "other"]


class LayerSample(Frozen):
    """Time of one whole layer. layer: the tool's name of it; seq_len None where not noted."""

    layer: str
    batch: int = pydantic.Field(ge=1)
    seq_len: int | None = pydantic.Field(default=None, ge=1)
    dtype: Dtype | None = None
    phase: Phase
    seconds: float = pydantic.Field(gt=0)


class LayerMemory(Frozen):
    """Bytes of one whole layer on one of tp ranks.

    parameter_bytes: of the whole layer, before any division. activation_bytes: kept for the
    backward per sequence; checkpoint_bytes: kept instead where the layer recomputes.
    """

    layer: str
    tp: int = pydantic.Field(ge=1)
    seq_len: int | None = pydantic.Field(default=None, ge=1)
    sequence_parallel: bool
    parameter_bytes: float | None = pydantic.Field(default=None, gt=0)
    activation_bytes: float = pydantic.Field(ge=0)
    checkpoint_bytes: float | None = pydantic.Field(default=None, ge=0)


class KernelTime(Frozen):
    """One kernel by name over a whole trace. seconds: of all its launches together."""

    name: str
    family: KernelFamily
    launches: int = pydantic.Field(ge=1)
    seconds: float = pydantic.Field(ge=0)


class TraceSummary(Frozen):
    """What a trace shows besides operators and collectives.

    ranks: how many ranks' traces these are. step_seconds: of every marked step, each the slowest
    rank's. kernels: the longest first, the rest together as `others`.
    """

    ranks: int = pydantic.Field(ge=1)
    step_seconds: tuple[float, ...] = ()
    kernels: tuple[KernelTime, ...] = ()
