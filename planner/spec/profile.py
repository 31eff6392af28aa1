"""Profile: what was measured on one machine, with the conditions it was measured under.

Other tools' measurements (profiler.imports) say less than our own: what they did not note is
None. A profile may hold any part: collectives alone, operators alone, layers alone.
"""

from typing import Literal, Self

import pydantic

from planner.spec.cluster import Backend, Slowdown
from planner.spec.documents import Document, Frozen
from planner.spec.observed import LayerMemory, LayerSample, TraceSummary
from planner.spec.provenance import Provenance
from planner.spec.workload import Dtype
from planner.spec.workload import Phase as Phase

CollectiveOp = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv"
]


class Machine(Frozen):
    """The machine a profile was taken on. accelerator is None on a machine without one.

    cores, memory_bytes: of the host; 0 on a GPU machine whose measurements came from a tool that
    did not note them. accelerators: of one node.
    """

    kind: Literal["cpu", "cuda"]
    processor: str = ""
    cores: int = pydantic.Field(default=0, ge=0)
    memory_bytes: float = pydantic.Field(default=0.0, ge=0)
    accelerator: str | None = None
    accelerators: int = 0
    accelerator_memory_bytes: float | None = None
    operating_system: str = ""
    python: str = ""
    torch: str = ""
    cuda: str = ""
    nccl: str = ""

    @pydantic.model_validator(mode="after")
    def _host_is_known(self) -> Self:
        if self.kind == "cpu" and not (self.cores and self.memory_bytes):
            raise ValueError("a cpu machine needs its cores and memory_bytes; profile it again")
        return self


class OperatorSample(Frozen):
    """Time of one operator at one shape.

    dims are those of the graph's operator of the same kind. seconds is the median, spread the
    interquartile range over the median (None where nobody noted it), repeats how many timings
    stand behind them. provenance: how and when it was measured, where it is not the profile's.

    matmul_nn, matmul_nt, matmul_tn are bare products out[m, n] = sum over k, forward only, of one
    storage layout: rows of A as k (n) or as m (t), of B as n (n) or as k (t). A linear layer's
    forward is nt, the gradient of its input nn, of its weight tn. attention_math is `attention`
    with its scores stored.
    """

    kind: str
    dims: dict[str, int]
    dtype: Dtype
    phase: Phase
    seconds: float = pydantic.Field(gt=0)
    spread: float | None = pydantic.Field(default=None, ge=0)
    repeats: int = pydantic.Field(default=1, ge=1)
    provenance: Provenance | None = None

    @property
    def key(self) -> tuple[str, tuple[tuple[str, int], ...], str, str]:
        """What makes two samples the same measurement."""
        return (self.kind, tuple(sorted(self.dims.items())), self.dtype, self.phase)


class CollectiveSample(Frozen):
    """Time of one collective; seconds is the mean of the middle four fifths of the repeats.

    message_bytes: the full tensor (the output of all_gather, the input of reduce_scatter), not
    the shard. groups: how many groups of this size ran it at the same time. nodes: over how many
    nodes the ranks of one group were spread evenly. in_place: whether the result overwrote the
    input. stride: distance in ranks between members of a group. All None where nobody noted it.
    """

    op: CollectiveOp
    backend: Backend
    ranks: int = pydantic.Field(ge=2)
    groups: int = pydantic.Field(default=1, ge=1)
    nodes: int | None = pydantic.Field(default=None, ge=1)
    in_place: bool | None = None
    stride: int | None = pydantic.Field(default=None, ge=1)
    message_bytes: float = pydantic.Field(ge=0)
    seconds: float = pydantic.Field(gt=0)
    spread: float | None = pydantic.Field(default=None, ge=0)
    repeats: int = pydantic.Field(default=1, ge=1)
    provenance: Provenance | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two samples the same measurement."""
        case = (self.op, self.backend, self.ranks, self.groups, self.nodes, self.in_place)
        return (*case, self.stride, self.message_bytes)


class OverlapSample(Frozen):
    """A collective beside computing: seconds of each alone and of each beside the other.

    The collective begins with the computing and ends before it (the computing was chosen to last
    longer), so all of the collective is hidden. compute: kind and dims of what ran, as in
    OperatorSample. groups: how many groups of this size did the same at once.
    """

    op: CollectiveOp
    backend: Backend
    ranks: int = pydantic.Field(ge=2)
    groups: int = pydantic.Field(default=1, ge=1)
    message_bytes: float = pydantic.Field(gt=0)
    compute: str
    dtype: Dtype
    compute_seconds: float = pydantic.Field(gt=0)
    collective_seconds: float = pydantic.Field(gt=0)
    compute_beside_seconds: float = pydantic.Field(gt=0)
    collective_beside_seconds: float = pydantic.Field(gt=0)
    spread: float | None = pydantic.Field(default=None, ge=0)
    repeats: int = pydantic.Field(default=1, ge=1)
    provenance: Provenance | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two samples the same measurement."""
        case = (self.op, self.backend, self.ranks, self.groups, self.message_bytes)
        return (*case, self.compute, self.dtype)

    @property
    def slowdown(self) -> float:
        """Seconds that computing loses per second of the hidden collective (0 to 1).

        Runtime.overlap_slowdown: compute + slowdown * hidden, hidden as long as it is alone.
        """
        lost = self.compute_beside_seconds - self.compute_seconds
        return min(1.0, max(0.0, lost / self.collective_seconds))


class LaunchCost(Frozen):
    """What it costs to start work, however little the work is.

    kernel_seconds: from the start of one tiny kernel to that of the next, of a chain of them.
    host_seconds: what the host spends to launch one. layer_host_seconds: forward and backward of
    one layer (layer_of) whose tensors are so small that only the host counts.
    """

    kernel_seconds: float = pydantic.Field(gt=0)
    host_seconds: float = pydantic.Field(gt=0)
    layer_host_seconds: float = pydantic.Field(gt=0)
    layer_of: str
    spread: float | None = pydantic.Field(default=None, ge=0)
    repeats: int = pydantic.Field(default=1, ge=1)
    provenance: Provenance | None = None


class CollectiveFit(Frozen):
    """seconds = latency + message_bytes / bandwidth, fitted over the samples of one case.

    bandwidth is that of the full message (algorithm bandwidth), not of one link.
    median_error: median of |fit / measured - 1| over the samples it was fitted on.
    """

    op: CollectiveOp
    backend: Backend
    ranks: int = pydantic.Field(ge=2)
    groups: int = pydantic.Field(default=1, ge=1)
    nodes: int | None = pydantic.Field(default=None, ge=1)
    stride: int | None = pydantic.Field(default=None, ge=1)
    latency_seconds: float = pydantic.Field(ge=0)
    bandwidth_bytes_per_second: float = pydantic.Field(gt=0)
    median_error: float = pydantic.Field(ge=0)


class Profile(Document):
    """Measured costs of one machine.

    busy_ranks: how many processes computed at once while the operators were timed.
    slowdown: (busy ranks, factor) of the same work, as SharedCores.slowdown.
    composition: measured time of a whole layer over the sum of its operators, by phase; what
    the sum of isolated operators misses (framework overhead, colder caches). composition_of
    names the layer. layers, layer_memory, trace: what other tools measured of whole layers and
    steps. overlap_slowdown: how much longer computing takes while communication runs. overlaps:
    the measurements behind it. launch: what starting a kernel and a layer costs.
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
    layers: tuple[LayerSample, ...] = ()
    layer_memory: tuple[LayerMemory, ...] = ()
    overlap_slowdown: float | None = pydantic.Field(default=None, ge=1)
    overlaps: tuple[OverlapSample, ...] = ()
    launch: LaunchCost | None = None
    trace: TraceSummary | None = None
    provenance: Provenance
