"""ClusterSpec: on what the model runs. Devices, the tiers of the network, shared host cores."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic

from planner.spec import units
from planner.spec.documents import Document, Frozen
from planner.spec.provenance import Provenance
from planner.spec.workload import Dtype

Backend = Literal["nccl", "gloo"]


class Accelerator(Document):
    """One device as its data sheet and public measurements describe it.

    Unknown numbers stay None: nothing is invented. memory_bytes: data sheets print binary
    gigabytes as GB (an H200 "of 141 GB" reports 143155 MiB), so the catalog reads them as GiB.
    peak_flops holds dense FLOP/s by dtype, matmul_flops the best matrix-product rate anybody
    published. matmul_efficiency: the share of the peak that a large, well-shaped product reaches;
    multiprocessors quantise the others (planner.cost.matmul); matmul_depth: elements of k that a
    kernel takes to fill its pipeline (None: that file's). fabric_bytes_per_second is per device
    and direction. provenance names a source per field.
    """

    SCHEMA = "accelerator/1"

    name: str
    kind: Literal["cuda", "rocm", "tpu", "hpu", "npu", "cpu"]
    memory_bytes: float | None = pydantic.Field(default=None, gt=0)
    memory_bandwidth_bytes_per_second: float | None = pydantic.Field(default=None, gt=0)
    peak_flops: dict[Dtype, float] = {}
    matmul_flops: dict[Dtype, float] = {}
    fabric: str = ""
    fabric_bytes_per_second: float | None = pydantic.Field(default=None, gt=0)
    price_usd_per_hour: float | None = pydantic.Field(default=None, ge=0)
    matmul_efficiency: float = pydantic.Field(default=0.70, gt=0, le=1)
    attention_efficiency: float = pydantic.Field(default=0.45, gt=0, le=1)
    memory_efficiency: float = pydantic.Field(default=0.80, gt=0, le=1)
    launch_seconds: float = pydantic.Field(default=5e-6, ge=0)
    multiprocessors: int | None = pydantic.Field(default=None, ge=1)
    matmul_depth: float | None = pydantic.Field(default=None, ge=0)
    notes: str = ""
    provenance: dict[str, Provenance] = {}

    @pydantic.field_validator("peak_flops", "matmul_flops", mode="before")
    @classmethod
    def _read_flops(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: units.parse_flops(v) if isinstance(v, str) else v for k, v in value.items()}


class Tier(Frozen):
    """One level of the network.

    devices: how many devices one domain of this tier joins (8 for the NVLink of a node).
    bandwidth_bytes_per_second: per device and direction when all devices send at once.
    latency_seconds: of one message. congestion: the loss of bandwidth per doubling of the domains
    of the tier below that a group spans. in_network_gain: how much faster an all-reduce inside one
    domain is where switches add up (NVLink SHARP), 1 without. pairwise: a link from every device to
    every other and no switch, so that a group has only the links between its own members.
    """

    name: str
    devices: int = pydantic.Field(ge=1)
    bandwidth_bytes_per_second: float = pydantic.Field(gt=0)
    latency_seconds: float = pydantic.Field(ge=0)
    congestion: float = pydantic.Field(default=0.0, ge=0)
    in_network_gain: float = pydantic.Field(default=1.0, ge=1)
    pairwise: bool = False


def _check_slowdown(value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    ranks = [busy for busy, _ in value]
    factors = [factor for _, factor in value]
    if value[:1] != ((1, 1.0),) or ranks != sorted(set(ranks)) or factors != sorted(factors):
        raise ValueError("slowdown must start with (1, 1.0) and grow in ranks and factors")
    return value


Slowdown = Annotated[tuple[tuple[int, float], ...], pydantic.AfterValidator(_check_slowdown)]
"""(busy ranks, factor) pairs: how much longer the same work takes, from (1, 1.0) on."""


class SharedCores(Frozen):
    """Host cores shared by all ranks of one machine.

    slowdown: (busy ranks, factor) pairs, measured: how much longer the same work takes when
    so many ranks compute at once. Factor 1 for one rank; beyond the last pair it grows in
    proportion to the ranks.
    network: messages cross links of their own, and a rank that waits for one leaves its core to
    others. Without it a message is a copy by these cores, which slows down as computing does.
    """

    cores: int = pydantic.Field(ge=1)
    slowdown: Slowdown = ((1, 1.0),)
    network: bool = False

    def factor(self, busy: float) -> float:
        """How much longer work takes while `busy` ranks compute at once (1 for one rank)."""
        if busy <= 1:
            return 1.0
        below = (1, 1.0)
        for point in self.slowdown:
            if point[0] >= busy:
                span = (busy - below[0]) / (point[0] - below[0])
                return below[1] + span * (point[1] - below[1])
            below = point
        return below[1] * busy / max(below[0], self.cores) if busy > self.cores else below[1]


class ClusterSpec(Document):
    """Nodes of equal devices joined by tiers, smallest tier first."""

    SCHEMA = "cluster/1"

    name: str
    accelerator: Accelerator
    nodes: int = pydantic.Field(ge=1)
    devices_per_node: int = pydantic.Field(ge=1)
    tiers: tuple[Tier, ...] = pydantic.Field(min_length=1)
    backend: Backend = "nccl"
    shared_cores: SharedCores | None = None
    provenance: dict[str, Provenance] = {}

    @pydantic.model_validator(mode="after")
    def _tiers_cover(self) -> Self:
        sizes = [tier.devices for tier in self.tiers]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"tiers must grow in devices, smallest first; got {sizes}")
        if sizes[-1] < self.devices:
            raise ValueError(
                f"the largest tier joins {sizes[-1]} devices, the cluster has {self.devices}; "
                f"add a tier or give its devices as {self.devices}"
            )
        if self.accelerator.memory_bytes is None:
            raise ValueError(f"accelerator {self.accelerator.name!r} has no memory; add `memory`")
        return self

    @property
    def devices(self) -> int:
        """Devices in all nodes."""
        return self.nodes * self.devices_per_node

    @property
    def memory_bytes(self) -> float:
        """Memory of one device."""
        return self.accelerator.memory_bytes or math.nan
