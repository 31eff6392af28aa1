"""Laws of collective times, and rates counted rank by rank."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.cost.collectives import RING_STEPS, CollectiveTimes
from planner.spec.cluster import ClusterSpec
from planner.spec.layout import Layout
from planner.spec.profile import CollectiveSample, Machine, Profile
from planner.spec.provenance import Provenance
from planner.spec.runtime import Axis
from tests.examples import cpu_cluster, gpu_cluster

ops = st.sampled_from(sorted(RING_STEPS))
sizes = st.floats(1, 1e10)


@given(ops, st.integers(2, 64), sizes, sizes)
def test_more_bytes_never_take_less_time(op: str, ranks: int, one: float, other: float) -> None:
    times = CollectiveTimes(gpu_cluster(nodes=8), None)
    small, large = sorted((one, other))
    slow = float(times.seconds(op, ranks, 1, 1, large))
    assert slow >= float(times.seconds(op, ranks, 1, 1, small))


@given(ops, st.integers(2, 64), sizes)
def test_leaving_the_node_is_never_faster(op: str, ranks: int, size: float) -> None:
    times = CollectiveTimes(gpu_cluster(nodes=64), None)
    near, far = (float(times.seconds(op, ranks, stride, 1, size)) for stride in (1, 8))
    assert far >= near * (1 - 1e-12)


@given(st.integers(2, 8), sizes)
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(ranks: int, size: float) -> None:
    times = CollectiveTimes(gpu_cluster(), None)
    parts = [float(times.seconds(op, ranks, 1, 1, size)) for op in ("reduce_scatter", "all_gather")]
    assert float(times.seconds("all_reduce", ranks, 1, 1, size)) == pytest.approx(sum(parts))


def test_ring_formula_by_hand() -> None:
    """8 ranks in one node: 14 steps of 4 us, 14/8 of 1 GB at 100 GB/s."""
    times = CollectiveTimes(gpu_cluster(), None)
    assert float(times.seconds("all_reduce", 8, 1, 1, 1e9)) == pytest.approx(
        14 * 4e-6 + 1.75 * 1e-2
    )


def test_a_whole_node_shares_its_way_out() -> None:
    """16 consecutive ranks: 8 per node, so 8 NICs of 10 GB/s carry the ring between the nodes."""
    times = CollectiveTimes(gpu_cluster(nodes=2), None)
    assert float(times.seconds("all_gather", 16, 1, 1, 16e9)) == pytest.approx(15 * 1e-5 + 15 / 80)
    assert float(times.seconds("all_gather", 2, 8, 8, 16e9)) == pytest.approx(1e-5 + 8 / 10)


def test_gloo_pays_reduce_scatter_like_all_reduce() -> None:
    times = CollectiveTimes(cpu_cluster(4), None)
    large = [float(times.seconds(op, 4, 1, 1, 1e9)) for op in ("reduce_scatter", "all_reduce")]
    assert large[0] == pytest.approx(large[1], rel=1e-2)


def test_one_rank_and_no_bytes_are_free() -> None:
    times = CollectiveTimes(gpu_cluster(), None)
    assert float(times.seconds("all_reduce", 1, 1, 1, 1e9)) == 0.0
    assert float(times.seconds("all_reduce", 8, 1, 1, 0.0)) == 0.0


def sample(size: float, seconds: float, groups: int = 1) -> CollectiveSample:
    return CollectiveSample(
        op="all_reduce",
        backend="gloo",
        ranks=2,
        groups=groups,
        message_bytes=size,
        seconds=seconds,
        spread=0.0,
        repeats=5,
    )


def test_a_profile_replaces_the_formula() -> None:
    machine = Machine(kind="cpu", processor="x", cores=2, memory_bytes=1e9)
    profile = Profile(
        machine=machine,
        created="now",
        collectives=(sample(1e3, 1e-3), sample(1e6, 1e-3), sample(1e7, 1e-2), sample(1e7, 5e-2, 2)),
        provenance=Provenance(birth="measured", source="test"),
    )
    times = CollectiveTimes(cpu_cluster(2), profile)
    seconds = times.seconds("all_reduce", 2, 1, 1, np.array([1.0, 1e3, 1e5, 1e7, 1e8]))
    assert seconds == pytest.approx([1e-3, 1e-3, 1e-3, 1e-2, 1e-1])
    assert times.birth("all_reduce", 2, 1, 1) == "measured"
    assert times.birth("all_gather", 2, 1, 1) == "assumed"


def noted(size: float, seconds: float, **changes: object) -> CollectiveSample:
    values = {"op": "all_reduce", "backend": "nccl", "ranks": 8, "message_bytes": size}
    return CollectiveSample.model_validate(values | {"seconds": seconds} | changes)


def times_with(*samples: CollectiveSample) -> CollectiveTimes:
    profile = Profile(
        machine=Machine(kind="cuda", accelerator="card"),
        created="now",
        collectives=samples,
        provenance=Provenance(birth="measured", source="test"),
    )
    return CollectiveTimes(gpu_cluster(nodes=8), profile)


@given(st.floats(0, 1e-2), st.floats(1e6, 1e11), st.lists(st.floats(0.1, 1e9), min_size=1))
def test_a_latency_and_a_bandwidth_are_found_again(
    latency: float, bandwidth: float, asked: list[float]
) -> None:
    """Between the measured sizes and beyond them."""
    known = [noted(size, latency + size / bandwidth) for size in (1e3, 1e5, 1e7)]
    times = times_with(*known)
    for size in asked:
        expected = latency + max(size, 1e3) / bandwidth
        assert float(times.seconds("all_reduce", 8, 1, 1, size)) == pytest.approx(expected)


def test_a_measurement_stands_for_groups_over_as_many_nodes() -> None:
    """8 ranks in a node, 8 ranks in 8 nodes, and a measurement that does not say."""
    inside = times_with(*(noted(size, 1e-3, nodes=1) for size in (1e3, 1e6)))
    assert inside.birth("all_reduce", 8, 1, 1) == "measured"
    assert inside.birth("all_reduce", 8, 1, 5) == "measured"
    assert inside.birth("all_reduce", 8, 8, 1) == "assumed"
    across = times_with(*(noted(size, 1e-3, nodes=2, ranks=4) for size in (1e3, 1e6)))
    assert across.birth("all_reduce", 4, 4, 1) == "measured"
    assert across.birth("all_reduce", 4, 1, 1) == "assumed"
    silent = times_with(*(noted(size, 1e-3) for size in (1e3, 1e6)))
    assert silent.birth("all_reduce", 8, 8, 1) == "measured"


def test_a_group_alone_on_the_network_does_not_stand_for_eight_that_share_it() -> None:
    alone = times_with(*(noted(size, 1e-3, nodes=8) for size in (1e3, 1e6)))
    assert alone.birth("all_reduce", 8, 8, 1) == "measured"
    assert alone.birth("all_reduce", 8, 8, 8) == "assumed"
    crowded = times_with(*(noted(size, 1e-3, nodes=8, groups=8) for size in (1e3, 1e6)))
    assert crowded.birth("all_reduce", 8, 8, 1) == "measured"


@pytest.mark.parametrize(("op", "taken"), [("all_reduce", 1e-3), ("all_gather", 2e-3)])
def test_training_reduces_in_place_and_gathers_out_of_place(op: str, taken: float) -> None:
    both = [
        noted(size, seconds, op=op, in_place=seconds == 1e-3)
        for size in (1e3, 1e6)
        for seconds in (1e-3, 2e-3)
    ]
    for samples in (both, both[::-1]):
        assert float(times_with(*samples).seconds(op, 8, 1, 1, 1e4)) == pytest.approx(taken)


def test_one_size_gives_the_formula_its_height() -> None:
    """Measured twice as slow at 1 MB: twice as slow at every size."""
    plain = CollectiveTimes(gpu_cluster(nodes=8), None)
    at = float(plain.seconds("all_reduce", 8, 1, 1, 1e6))
    times = times_with(noted(1e6, 2 * at))
    sizes = np.array([1.0, 1e4, 1e6, 1e9])
    expected = 2 * plain.seconds("all_reduce", 8, 1, 1, sizes)
    assert times.seconds("all_reduce", 8, 1, 1, sizes) == pytest.approx(expected)
    assert times.birth("all_reduce", 8, 1, 1) == "fitted"


def crossing_node(members: tuple[int, ...], per_node: int) -> dict[int, int]:
    """Members of a group per node."""
    return Counter(rank // per_node for rank in members)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Divisions of up to 8 nodes of 8, powers of two or not."""
    order, left = draw(st.permutations(["tp", "cp", "dp", "pp"])), 64
    degrees = {}
    for axis in draw(st.permutations(order)):
        degrees[axis] = draw(st.integers(1, min(left, 12)))
        left //= degrees[axis]
    return Layout(**degrees, axis_order=(*order, "ep"))


def slowest_ring(layout: Layout, axis: Axis) -> float:
    """Bytes/s of the slowest ring of an axis, counted rank by rank on nodes of 8."""
    slowest = math.inf
    for rank in range(layout.devices):
        per_node = crossing_node(layout.group(rank, axis), 8)
        slowest = min(slowest, 100e9)
        if len(per_node) > 1:
            slowest = min(slowest, 10e9 * min(per_node.values()))
    return slowest


def ring_rate(layout: Layout, axis: Axis) -> float:
    """Bytes/s that the formula gives the rings of an axis."""
    times = CollectiveTimes(gpu_cluster(nodes=8), None)
    ranks, stride = getattr(layout, axis), layout.stride(axis)
    one, two = (float(times.seconds("all_gather", ranks, stride, 1, s)) for s in (1e12, 2e12))
    return 1e12 * (ranks - 1) / ranks / (two - one)


axes = st.sampled_from(["tp", "cp", "dp", "pp"])


@settings(max_examples=200, deadline=None)
@given(layouts(), axes)
def test_no_ring_is_faster_than_the_links_it_crosses(layout: Layout, axis: Axis) -> None:
    assume(getattr(layout, axis) > 1)
    assert ring_rate(layout, axis) <= slowest_ring(layout, axis) * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(layouts(), axes)
def test_groups_touch_at_most_the_nodes_that_are_counted(layout: Layout, axis: Axis) -> None:
    """14 ranks side by side from rank 14 on lie on three nodes of 8, not on two."""
    ranks, stride = getattr(layout, axis), layout.stride(axis)
    assume(ranks > 1)
    counted = CollectiveTimes(gpu_cluster(nodes=8), None)._nodes(ranks, stride)
    touched = [len(crossing_node(layout.group(rank, axis), 8)) for rank in range(layout.devices)]
    assert max(touched) <= counted <= ranks


@pytest.mark.parametrize(
    ("degrees", "nodes"),
    [({"tp": 14, "dp": 4}, 3), ({"tp": 12, "dp": 4}, 2), ({"tp": 6, "dp": 8}, 2), ({"tp": 16}, 2)],
)
def test_uneven_groups_straddle_one_node_more(degrees: dict[str, int], nodes: int) -> None:
    layout = Layout(**degrees)
    touched = [len(crossing_node(layout.group(rank, "tp"), 8)) for rank in range(layout.devices)]
    times = CollectiveTimes(gpu_cluster(nodes=8), None)
    assert max(touched) == times._nodes(layout.tp, 1) == nodes


@given(st.integers(2, 64), sizes)
def test_a_broadcast_of_gloo_is_a_binomial_tree(ranks: int, size: float) -> None:
    """Counted step by step: every rank that has the message sends it to one that has not."""
    cluster = cpu_cluster(64)
    link = cluster.tiers[0].latency_seconds + size / cluster.tiers[0].bandwidth_bytes_per_second
    reached, seconds = 1, 0.0
    while reached < ranks:
        reached, seconds = 2 * reached, seconds + link
    times = CollectiveTimes(cluster, None)
    assert float(times.seconds("broadcast", ranks, 1, 1, size)) == pytest.approx(seconds)


POWERS = st.sampled_from([1, 2, 4, 8, 16])


@settings(max_examples=100, deadline=None)
@given(POWERS, POWERS, POWERS, axes, st.permutations(["tp", "cp", "dp", "pp"]))
def test_rings_of_powers_of_two_are_as_fast_as_their_slowest_crossing(
    tp: int, dp: int, pp: int, axis: Axis, order: list[Axis]
) -> None:
    assume(tp * dp * pp <= 64)
    layout = Layout(tp=tp, dp=dp, pp=pp, axis_order=(*order, "ep"))
    assume(getattr(layout, axis) > 1)
    assert ring_rate(layout, axis) == pytest.approx(slowest_ring(layout, axis), rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(layouts(), axes)
def test_what_leaves_a_node_fits_its_network_cards(layout: Layout, axis: Axis) -> None:
    """All rings of an axis at once: each node's rings together send at most 8 * 10 GB/s out."""
    assume(getattr(layout, axis) > 1)
    rate, leaving = ring_rate(layout, axis), Counter[int]()
    for group in {layout.group(rank, axis) for rank in range(layout.devices)}:
        per_node = crossing_node(group, 8)
        if len(per_node) > 1:
            leaving.update(per_node.keys())
    assert all(rings * rate <= 8 * 10e9 * (1 + 1e-9) for rings in leaving.values())


@pytest.mark.parametrize(
    ("degrees", "axis", "rate"),
    [
        ({"tp": 8, "dp": 8}, "tp", 100e9),
        ({"tp": 8, "dp": 8}, "dp", 10e9),
        ({"dp": 64}, "dp", 80e9),
        ({"tp": 16, "dp": 4}, "tp", 80e9),
        ({"tp": 16, "dp": 4}, "dp", 10e9),
        ({"tp": 4, "dp": 16}, "dp", 20e9),
        ({"tp": 2, "dp": 32}, "dp", 40e9),
        ({"tp": 2, "dp": 4, "pp": 8}, "dp", 100e9),
        ({"tp": 6, "dp": 10}, "tp", 20e9),
        ({"tp": 12, "dp": 4}, "tp", 40e9),
    ],
)
def test_rates_by_hand(degrees: dict[str, int], axis: Axis, rate: float) -> None:
    """100 GB/s inside nodes of 8, 10 GB/s per device between them."""
    assert ring_rate(Layout(**degrees), axis) == pytest.approx(rate, rel=1e-6)


BUS_FACTOR = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "send_recv": lambda n: 1.0,
}
"""nccl-tests, doc/PERFORMANCE.md: bus bandwidth = algorithm bandwidth * factor."""


@given(ops, st.integers(2, 8))
def test_bus_bandwidth_of_a_large_message_is_the_link(op: str, ranks: int) -> None:
    size = 1e13
    seconds = float(CollectiveTimes(gpu_cluster(), None).seconds(op, ranks, 1, 1, size))
    assert size / seconds * BUS_FACTOR[op](ranks) == pytest.approx(100e9, rel=1e-4)


def test_every_rank_of_an_all_to_all_uses_its_own_way_out() -> None:
    """16 ranks on two nodes: half of what each deals out leaves through its own 10 GB/s."""
    times = CollectiveTimes(gpu_cluster(nodes=2), None)
    seconds = float(times.seconds("all_to_all", 16, 1, 1, 1e12))
    assert seconds == pytest.approx(1e12 / 2 / 10e9, rel=1e-4)


def test_a_pipeline_that_leaves_its_node_is_as_slow_as_that_hop() -> None:
    """4 stages of 4 ranks: the middle hop joins two nodes of 8, the others stay inside."""
    times = CollectiveTimes(gpu_cluster(nodes=2), None)
    hops = [float(times.seconds("send_recv", stages, 4, 4, 1e9)) for stages in (2, 4)]
    assert hops == pytest.approx([4e-6 + 1e-2, 1e-5 + 1e-1])


def test_a_tree_joins_only_the_nodes_that_its_group_touches() -> None:
    """Two ranks 32 apart are on two of 8 nodes: one hop up and one down."""
    times = CollectiveTimes(gpu_cluster(nodes=8), None)
    assert float(times.seconds("all_reduce", 4, 16, 16, 8.0)) == pytest.approx(
        2 * 2 * 1e-5 + 2 * 8 / 10e9
    )


def tier_with(**changes: object) -> ClusterSpec:
    cluster = gpu_cluster(nodes=8)
    return cluster.replace(tiers=tuple(tier.replace(**changes) for tier in cluster.tiers))


def fabric_with(**changes: object) -> ClusterSpec:
    """Only the links inside a node."""
    cluster = gpu_cluster(nodes=8)
    fabric, network = cluster.tiers
    return cluster.replace(tiers=(fabric.replace(**changes), network))


def ring_seconds(n: int, latency: float, rate: float, size: float) -> float:
    return 2 * (n - 1) * latency + 2 * (n - 1) / n * size / rate


@given(st.sampled_from([16, 32, 64]), sizes)
def test_a_tree_helps_only_where_latency_counts(ranks: int, size: float) -> None:
    """Never slower than the ring, and equal to it once both move at the links' pace."""
    times = CollectiveTimes(gpu_cluster(nodes=8), None)
    seconds = float(times.seconds("all_reduce", ranks, 1, 1, size))
    ring = ring_seconds(ranks, 1e-5, 80e9, size)
    assert seconds <= ring * (1 + 1e-12)
    large = float(times.seconds("all_reduce", ranks, 1, 1, 1e12))
    assert large == pytest.approx(ring_seconds(ranks, 1e-5, 80e9, 1e12))
    assert float(times.seconds("all_reduce", ranks, 1, 1, 8.0)) < ring_seconds(ranks, 1e-5, 80e9, 8)


def test_a_tree_by_hand() -> None:
    """4 nodes of 8: up and down 3 hops inside and 2 outside."""
    times = CollectiveTimes(gpu_cluster(nodes=4), None)
    expected = 2 * (3 * 4e-6 + 2 * 1e-5) + 2 * 8 / 80e9
    assert float(times.seconds("all_reduce", 32, 1, 1, 8.0)) == pytest.approx(expected)


@given(ops, st.sampled_from([2, 4, 8, 16, 64]), sizes)
def test_adding_switches_speed_up_all_reduces_inside_one_domain_only(
    op: str, ranks: int, size: float
) -> None:
    plain, adding = (CollectiveTimes(tier_with(in_network_gain=g), None) for g in (1.0, 1.5))
    before, after = (float(t.seconds(op, ranks, 1, 1, size)) for t in (plain, adding))
    assert after <= before
    if op != "all_reduce" or ranks > 8:
        assert after == before
    elif size > 1e9:
        assert after < before


@given(ops, st.integers(2, 64), st.sampled_from([1, 2, 4, 8]), sizes)
def test_without_a_switch_a_group_has_its_own_links_only(
    op: str, ranks: int, stride: int, size: float
) -> None:
    """Never faster than with one; as fast where all of a node take part, or one of each node."""
    switched, pairwise = (CollectiveTimes(fabric_with(pairwise=p), None) for p in (False, True))
    before, after = (float(t.seconds(op, ranks, stride, 1, size)) for t in (switched, pairwise))
    assert after >= before
    if stride == 8 or (stride == 1 and ranks % 8 == 0 and op != "send_recv"):
        assert after == before
    elif ranks < 8 and 8 % (ranks * stride) == 0 and size > 1e9:
        assert after > before


def test_two_of_eight_have_one_link_of_seven() -> None:
    times = CollectiveTimes(fabric_with(pairwise=True), None)
    rate = fabric_with(pairwise=True).tiers[0].bandwidth_bytes_per_second
    for op, share in (("send_recv", 1.0), ("all_gather", 0.5), ("all_to_all", 0.5)):
        found = float(times.seconds(op, 2, 1, 4, 1e12))
        assert found == pytest.approx(share * 1e12 / (rate / 7), rel=1e-3)


@given(ops, st.integers(2, 64), st.sampled_from([1, 2, 8]), sizes, st.floats(1, 100))
def test_better_links_are_never_slower(
    op: str, ranks: int, stride: int, size: float, factor: float
) -> None:
    cluster = gpu_cluster(nodes=64)
    slow = float(CollectiveTimes(cluster, None).seconds(op, ranks, stride, 1, size))
    for index in range(2):
        tier = cluster.tiers[index]
        for better in (
            {"bandwidth_bytes_per_second": tier.bandwidth_bytes_per_second * factor},
            {"latency_seconds": tier.latency_seconds / factor},
        ):
            tiers = list(cluster.tiers)
            tiers[index] = tier.replace(**better)
            times = CollectiveTimes(cluster.replace(tiers=tuple(tiers)), None)
            assert float(times.seconds(op, ranks, stride, 1, size)) <= slow * (1 + 1e-12)


@given(ops, st.integers(2, 64), sizes)
def test_congestion_is_never_faster(op: str, ranks: int, size: float) -> None:
    free, crowded = (CollectiveTimes(tier_with(congestion=c), None) for c in (0.0, 0.3))
    before, after = (float(t.seconds(op, ranks, 1, 1, size)) for t in (free, crowded))
    assert after >= before
    if 8 % ranks == 0:
        assert after == before


@pytest.mark.parametrize(
    ("op", "ranks", "milliseconds"),
    [
        ("all_gather", 2, 12),
        ("all_to_all", 2, 12),
        ("all_reduce", 2, 24),
        ("all_gather", 4, 32),
        ("all_reduce", 4, 65),
        ("all_to_all", 4, 11),
        ("send_recv", 2, 6),
    ],
)
def test_gloo_latencies_are_those_measured(op: str, ranks: int, milliseconds: float) -> None:
    """gloo of torch 2.13 over links of 6 ms, small messages (a shaped network of this project)."""
    cluster = cpu_cluster(4)
    tiers = (cluster.tiers[0].replace(latency_seconds=6e-3),)
    times = CollectiveTimes(cluster.replace(tiers=tiers), None)
    seconds = float(times.seconds(op, ranks, 1, 1, 8.0))
    assert seconds == pytest.approx(milliseconds * 1e-3, rel=0.15)
