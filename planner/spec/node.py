"""Node: one machine of a cluster design, and the cluster that some of them make.

A node holds devices of one kind joined by a fabric (NVLink, XGMI, PCIe); network cards join
the nodes. Bandwidths are those that collectives reach, not those of the data sheet, per device
and direction when all devices of the node send at once: a card shared by 8 devices counts for
an eighth. The rack of GB200 NVL72 is one node of 72 devices: a node is what one fabric joins.
"""

import pydantic

from planner.spec.cluster import Accelerator, Backend, ClusterSpec, Tier
from planner.spec.documents import Document, Frozen
from planner.spec.provenance import Provenance


class Link(Frozen):
    """What joins devices: the fabric inside a node, or the network between nodes.

    bandwidth_bytes_per_second: per device and direction when all devices send at once.
    latency_seconds: of one message. congestion, in_network_gain: see planner.spec.cluster.Tier.
    """

    name: str
    bandwidth_bytes_per_second: float = pydantic.Field(gt=0)
    latency_seconds: float = pydantic.Field(ge=0)
    congestion: float = pydantic.Field(default=0.0, ge=0)
    in_network_gain: float = pydantic.Field(default=1.0, ge=1)

    def tier(self, devices: int) -> Tier:
        """This link as the tier that joins so many devices."""
        return Tier(devices=devices, **dict(self))


class Node(Document):
    """A design of a machine. accelerator: the catalog's name of the device.

    provenance: by field, with dots (`fabric.latency_seconds`).
    """

    SCHEMA = "node/1"

    name: str
    accelerator: str
    devices_per_node: int = pydantic.Field(ge=1)
    fabric: Link
    network: Link
    backend: Backend = "nccl"
    description: str = ""
    notes: str = ""
    provenance: dict[str, Provenance] = {}


def make_cluster(node: Node, accelerator: Accelerator, nodes: int) -> ClusterSpec:
    """A cluster of equal nodes: the fabric tier and, beyond one node, the network tier."""
    devices = nodes * node.devices_per_node
    tiers = [node.fabric.tier(node.devices_per_node)]
    if nodes > 1:
        tiers.append(node.network.tier(devices))
    return ClusterSpec(
        name=f"{node.name}:{nodes}",
        accelerator=accelerator,
        nodes=nodes,
        devices_per_node=node.devices_per_node,
        tiers=tuple(tiers),
        backend=node.backend,
        provenance=node.provenance,
    )
