"""Topology: nodes of ranks, with links inside a node and between nodes.

Every rank has a port into its node's switch and a port out of the node, both in full duplex; where
the uplink is shared, all ranks of a node have one port out together.
"""

from dataclasses import dataclass

from planner.spec.cluster import ClusterSpec, Tier
from planner.spec.local import local_cluster
from planner.spec.profile import Profile


@dataclass(frozen=True, slots=True)
class Link:
    """bandwidth per port and direction; latency of one packet."""

    bandwidth_bytes_per_second: float
    latency_seconds: float


@dataclass(frozen=True, slots=True)
class Topology:
    """nodes * per_node ranks; rank r is in node r // per_node."""

    name: str
    nodes: int
    per_node: int
    inside: Link
    between: Link
    shared_uplink: bool = False

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.nodes * self.per_node

    def node(self, rank: int) -> int:
        """The node of a rank."""
        return rank // self.per_node

    def link(self, source: int, target: int) -> Link:
        """What a packet crosses."""
        return self.inside if self.node(source) == self.node(target) else self.between

    def spread(self, members: tuple[int, ...]) -> int:
        """Over how many nodes a group of ranks is spread."""
        return len({self.node(rank) for rank in members})

    def cluster(self, profile: Profile) -> ClusterSpec:
        """The cluster that the planner sees: this machine's compute, these links."""
        local = local_cluster(profile, self.ranks)
        tiers = [_tier("node", self.per_node, self.inside)] if self.per_node > 1 else []
        tiers.append(_tier("network", self.ranks, self.between))
        assert local.shared_cores is not None
        return local.replace(
            name=self.name,
            nodes=self.nodes,
            devices_per_node=self.per_node,
            tiers=tuple(tiers),
            backend="gloo",
            shared_cores=local.shared_cores.replace(network=True),
        )


def _tier(name: str, devices: int, link: Link) -> Tier:
    return Tier(
        name=name,
        devices=devices,
        bandwidth_bytes_per_second=link.bandwidth_bytes_per_second,
        latency_seconds=link.latency_seconds,
    )


MEGABIT = 1e6 / 8

TOPOLOGIES = (
    Topology(
        "two-nodes", 2, 2, Link(1000 * MEGABIT, 1e-4), Link(300 * MEGABIT, 1e-3), shared_uplink=True
    ),
    Topology("four-nodes", 4, 1, Link(1000 * MEGABIT, 1e-4), Link(300 * MEGABIT, 5e-4)),
    Topology("far-nodes", 2, 2, Link(500 * MEGABIT, 2e-4), Link(200 * MEGABIT, 1e-2)),
)
"""Chosen, so that placement changes a step severalfold: a slow uplink for two, a flat network, and
two sites that are far apart."""
