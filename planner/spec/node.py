"""Node: one machine of a cluster design, and the cluster that some of them make.

A node holds devices of one kind joined by a fabric (NVLink, XGMI, PCIe); network cards join
the nodes. Bandwidths are those that collectives reach, not those of the data sheet, per device
and direction when all devices of the node send at once: a card shared by 8 devices counts for
an eighth. The rack of GB200 NVL72 is one node of 72 devices: a node is what one fabric joins.

Tori. The chips of a TPU pod have links to neighbours only, in two or three dimensions with ends
joined. Tiers know no dimensions, so a torus is described by what a ring of chips gets of it, the
way that compilers lay out collectives along its axes:

    fabric     a ring along one axis, both ways: 2 links of a chip, whatever the number of axes
    network    from a host or a cube of chips to the others of its pod: the links of its surface,
               shared by its chips (f links of n chips give f/n a chip)
    pods       the data-centre network between pods

A group over several axes at once can use the links of all of them and is faster than that.
"""

from typing import Self

import pydantic

from planner.spec.cluster import Accelerator, Backend, ClusterSpec, Tier
from planner.spec.documents import Document, Frozen
from planner.spec.provenance import Provenance


class Link(Frozen):
    """What joins devices: the fabric inside a node, or the network between nodes.

    bandwidth_bytes_per_second: per device and direction when all devices send at once.
    latency_seconds: of one message. congestion, in_network_gain, pairwise: see
    planner.spec.cluster.Tier.
    """

    name: str
    bandwidth_bytes_per_second: float = pydantic.Field(gt=0)
    latency_seconds: float = pydantic.Field(ge=0)
    congestion: float = pydantic.Field(default=0.0, ge=0)
    in_network_gain: float = pydantic.Field(default=1.0, ge=1)
    pairwise: bool = False

    def tier(self, devices: int) -> Tier:
        """This link as the tier that joins so many devices."""
        return Tier(devices=devices, **dict(self))


class Node(Document):
    """A design of a machine. accelerator: the catalog's name of the device.

    pods: what joins more nodes than the network does, which are pod_devices together (None: the
    network joins any number). provenance: by field, with dots (`fabric.latency_seconds`).
    """

    SCHEMA = "node/1"

    name: str
    accelerator: str
    devices_per_node: int = pydantic.Field(ge=1)
    fabric: Link
    network: Link
    pods: Link | None = None
    pod_devices: int | None = pydantic.Field(default=None, ge=1)
    backend: Backend = "nccl"
    description: str = ""
    notes: str = ""
    provenance: dict[str, Provenance] = {}

    @pydantic.model_validator(mode="after")
    def _pods_hold_nodes(self) -> Self:
        if (self.pods is None) != (self.pod_devices is None):
            raise ValueError("pods and pod_devices belong together; give both or neither")
        if self.pod_devices and self.pod_devices % self.devices_per_node:
            raise ValueError(
                f"pod_devices: {self.pod_devices} is no multiple of devices_per_node="
                f"{self.devices_per_node}"
            )
        return self


def make_cluster(node: Node, accelerator: Accelerator, nodes: int) -> ClusterSpec:
    """A cluster of equal nodes: the fabric tier, beyond one node the network tier, and beyond one
    pod that of the pods."""
    devices = nodes * node.devices_per_node
    joined = devices if node.pod_devices is None else min(devices, node.pod_devices)
    tiers = [node.fabric.tier(node.devices_per_node)]
    if joined > node.devices_per_node:
        tiers.append(node.network.tier(joined))
    if node.pods is not None and devices > joined:
        tiers.append(node.pods.tier(devices))
    return ClusterSpec(
        name=f"{node.name}:{nodes}",
        accelerator=accelerator,
        nodes=nodes,
        devices_per_node=node.devices_per_node,
        tiers=tuple(tiers),
        backend=node.backend,
        provenance=node.provenance,
    )
