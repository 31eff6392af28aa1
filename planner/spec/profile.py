"""Profile: what was measured on one machine, with the conditions it was measured under."""

from typing import Literal

import pydantic

from planner.spec.cluster import Backend, Slowdown
from planner.spec.documents import Document, Frozen
from planner.spec.provenance import Provenance
from planner.spec.workload import Dtype

Phase = Literal["forward", "backward"]
CollectiveOp = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv"
]


class Machine(Frozen):
    """The machine a profile was taken on. accelerator is None on a machine without one."""

    kind: Literal["cpu", "cuda"]
    processor: str
    cores: int = pydantic.Field(ge=1)
    memory_bytes: float = pydantic.Field(gt=0)
    accelerator: str | None = None
    accelerators: int = 0
    accelerator_memory_bytes: float | None = None
    operating_system: str = ""
    python: str = ""
    torch: str = ""


class OperatorSample(Frozen):
    """Time of one operator at one shape.

    dims are those of the graph's operator of the same kind. seconds is the median, spread the
    interquartile range over the median, repeats how many timings stand behind them.
    """

    kind: str
    dims: dict[str, int]
    dtype: Dtype
    phase: Phase
    seconds: float = pydantic.Field(gt=0)
    spread: float = pydantic.Field(ge=0)
    repeats: int = pydantic.Field(ge=1)

    @property
    def key(self) -> tuple[str, tuple[tuple[str, int], ...], str, str]:
        """What makes two samples the same measurement."""
        return (self.kind, tuple(sorted(self.dims.items())), self.dtype, self.phase)


class CollectiveSample(Frozen):
    """Time of one collective; seconds is the mean of the middle four fifths of the repeats.

    message_bytes: the full tensor (the output of all_gather, the input of reduce_scatter), not
    the shard. groups: how many groups of this size ran it at the same time.
    """

    op: CollectiveOp
    backend: Backend
    ranks: int = pydantic.Field(ge=2)
    groups: int = pydantic.Field(default=1, ge=1)
    message_bytes: float = pydantic.Field(ge=0)
    seconds: float = pydantic.Field(gt=0)
    spread: float = pydantic.Field(ge=0)
    repeats: int = pydantic.Field(ge=1)


class CollectiveFit(Frozen):
    """seconds = latency + message_bytes / bandwidth, fitted over the samples of one case.

    bandwidth is that of the full message (algorithm bandwidth), not of one link.
    median_error: median of |fit / measured - 1| over the samples it was fitted on.
    """

    op: CollectiveOp
    backend: Backend
    ranks: int = pydantic.Field(ge=2)
    groups: int = pydantic.Field(default=1, ge=1)
    latency_seconds: float = pydantic.Field(ge=0)
    bandwidth_bytes_per_second: float = pydantic.Field(gt=0)
    median_error: float = pydantic.Field(ge=0)


class Profile(Document):
    """Measured costs of one machine.

    busy_ranks: how many processes computed at once while the operators were timed.
    slowdown: (busy ranks, factor) of the same work, as SharedCores.slowdown.
    composition: measured time of a whole layer over the sum of its operators, by phase; what
    the sum of isolated operators misses (framework overhead, colder caches). composition_of
    names the layer.
    """

    SCHEMA = "profile/1"

    machine: Machine
    created: str
    operators: tuple[OperatorSample, ...] = ()
    collectives: tuple[CollectiveSample, ...] = ()
    fits: tuple[CollectiveFit, ...] = ()
    busy_ranks: int = pydantic.Field(default=1, ge=1)
    slowdown: Slowdown = ((1, 1.0),)
    composition: dict[Phase, float] = {}
    composition_of: str = ""
    memory_bandwidth_bytes_per_second: float | None = pydantic.Field(default=None, gt=0)
    provenance: Provenance
