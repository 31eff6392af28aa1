"""Hops: each link of a pipeline takes what such pairs of ranks took when they were measured."""

import pytest

from planner.cost.blocks import Blocks
from planner.cost.hops import hops
from planner.spec.cluster import SharedCores, Tier
from planner.spec.layout import Layout
from planner.spec.profile import CollectiveSample, Machine, Profile
from planner.spec.provenance import Provenance
from planner.spec.workload import Workload
from tests.examples import cpu_cluster, gpt2_like, plain_runtime

FAST, SLOW = (1e-4, 1e8), (1e-3, 1e7)
"""Latency and bandwidth inside a node and between two, of one pair of ranks."""
SIZE = 1e5


def seconds(link: tuple[float, float], size: float, pairs: int = 1) -> float:
    return link[0] + pairs * size / link[1]


def two_nodes(*samples: CollectiveSample) -> Blocks:
    """Two nodes of two ranks; what leaves a node shares its way out."""
    inner, outer = (
        Tier(name=name, devices=n, latency_seconds=link[0], bandwidth_bytes_per_second=link[1])
        for name, n, link in (("node", 2, FAST), ("network", 4, SLOW))
    )
    cluster = cpu_cluster(4).replace(
        nodes=2,
        devices_per_node=2,
        tiers=(inner, outer),
        shared_cores=SharedCores(cores=2, network=True),
    )
    profile = Profile(
        machine=Machine(kind="cpu", processor="x", cores=2, memory_bytes=1e9),
        created="now",
        collectives=samples,
        provenance=Provenance(birth="measured", source="test"),
    )
    workload = Workload(seq_len=32, global_batch=16, dtype="fp32")
    return Blocks(gpt2_like(), cluster, workload, plain_runtime(), profile)


def measured() -> list[CollectiveSample]:
    cases = [(1, 1, 1, FAST), (2, 1, 1, FAST), (1, 2, 2, SLOW), (2, 2, 2, SLOW)]
    return [
        CollectiveSample(
            op="send_recv",
            backend="gloo",
            ranks=2,
            groups=groups,
            stride=stride,
            nodes=nodes,
            message_bytes=size,
            seconds=seconds(link, size, groups if nodes > 1 else 1),
        )
        for groups, stride, nodes, link in cases
        for size in (1.0, 1e6)
    ]


def test_a_pipeline_leaves_its_node_once() -> None:
    found = hops(two_nodes(*measured()), Layout(pp=4), [0, 1, 2, 3], SIZE, 9.0)
    fast, slow = seconds(FAST, SIZE), seconds(SLOW, SIZE)
    assert found.messages.tolist() == pytest.approx([fast, slow, fast])
    assert found.notices.tolist() == pytest.approx([FAST[0], SLOW[0], FAST[0]], rel=1e-2)


def test_two_pipelines_share_the_way_out() -> None:
    found = hops(two_nodes(*measured()), Layout(pp=2, dp=2), [0, 1], SIZE, 9.0)
    assert found.messages.tolist() == pytest.approx([seconds(SLOW, SIZE, 2)])


def test_stages_of_one_rank_send_nothing() -> None:
    """A V of four stages on two ranks of a node."""
    found = hops(two_nodes(*measured()), Layout(pp=2, vpp=2), [0, 1, 1, 0], SIZE, 9.0)
    assert found.messages.tolist() == pytest.approx([seconds(FAST, SIZE), 0, seconds(FAST, SIZE)])


def test_what_nobody_measured_is_as_slow_as_the_slowest() -> None:
    found = hops(two_nodes(), Layout(pp=4), [0, 1, 2, 3], SIZE, 9.0)
    assert found.messages.tolist() == [9.0] * 3
    assert found.notices.tolist() == [0.0] * 3


def test_messages_over_a_network_stay_as_measured() -> None:
    """On loopback those of four busy ranks are taken to a rank alone."""
    blocks = two_nodes(*measured())
    assert float(blocks.collective("send_recv", 2, 2, 2, SIZE)) == pytest.approx(
        seconds(SLOW, SIZE, 2)
    )
