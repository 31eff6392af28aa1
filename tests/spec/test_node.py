"""Node: the cluster that some nodes make."""

import pytest

from planner.spec import catalog, documents
from planner.spec.documents import InputError
from planner.spec.node import Link, Node, make_cluster

CARD = catalog.find_accelerator("h100-sxm")
LINKS = {
    "fabric": Link(name="wire", bandwidth_bytes_per_second=9e9, latency_seconds=1e-6),
    "network": Link(name="net", bandwidth_bytes_per_second=1e9, latency_seconds=9e-6),
}
NODE = Node(name="n", accelerator="h100-sxm", devices_per_node=4, **LINKS)


def test_one_node_has_no_network():
    cluster = make_cluster(NODE, CARD, 1)
    assert [(tier.name, tier.devices) for tier in cluster.tiers] == [("wire", 4)]


def test_more_nodes_are_joined_by_the_network():
    cluster = make_cluster(NODE, CARD, 3)
    assert [(tier.name, tier.devices) for tier in cluster.tiers] == [("wire", 4), ("net", 12)]
    assert cluster.tiers[1].bandwidth_bytes_per_second == 1e9
    assert cluster.tiers[0].latency_seconds == 1e-6


def test_nodes_of_one_device_keep_both_tiers():
    cluster = make_cluster(NODE.replace(devices_per_node=1), CARD, 2)
    assert [tier.devices for tier in cluster.tiers] == [1, 2]


def test_pods_join_what_the_network_does_not():
    pods = Link(name="far", bandwidth_bytes_per_second=1e8, latency_seconds=1e-4)
    node = NODE.replace(pods=pods, pod_devices=8)
    for nodes, tiers in ((1, ["wire"]), (2, ["wire", "net"]), (3, ["wire", "net", "far"])):
        assert [tier.name for tier in make_cluster(node, CARD, nodes).tiers] == tiers
    assert [tier.devices for tier in make_cluster(node, CARD, 3).tiers] == [4, 8, 12]


@pytest.mark.parametrize("wrong", [{"pod_devices": 8}, {"pods": LINKS["network"]}])
def test_pods_and_their_size_belong_together(wrong):
    with pytest.raises(InputError, match="belong together"):
        documents.parse(Node, {**NODE.model_dump(), **wrong}, "n.yaml")


def test_the_provenance_travels_along():
    node = NODE.replace(provenance={"devices_per_node": CARD.provenance["memory_bytes"]})
    assert make_cluster(node, CARD, 2).provenance == node.provenance
