"""Laws of overlap: closed forms against the two machines in a line that they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost import overlap
from planner.cost.blocks import BlockCost, Blocks
from planner.cost.divisions import Division
from planner.graph.operator import Collective
from planner.graph.parts.attention import CORE_KINDS
from planner.spec.cluster import ClusterSpec
from planner.spec.layout import Layout
from tests.cost.drawn import asked, wide, with_traits
from tests.examples import gpu_cluster, plain_runtime

seconds = st.floats(0, 100)
pieces = st.integers(1, 50)


def in_a_line(first: float, second: float, count: int) -> float:
    """End of the second of two machines that handle `count` pieces one after the other."""
    ends = [0.0, 0.0]
    for _ in range(count):
        ends[0] += first / count
        ends[1] = max(ends) + second / count
    return ends[1]


@given(seconds, seconds, pieces)
def test_exposed_is_what_two_machines_in_a_line_take_longer(
    sent: float, computed: float, count: int
) -> None:
    """Gradients behind the layers that make them, weights before the layers that use them."""
    left = overlap.exposed(sent, computed, float(count))
    assert in_a_line(computed, sent, count) == pytest.approx(computed + left, abs=1e-9)
    assert in_a_line(sent, computed, count) == pytest.approx(computed + left, abs=1e-9)


@given(st.lists(seconds, min_size=1, max_size=5), seconds, pieces)
def test_exposed_lies_between_one_piece_and_all(
    sent: list[float], computed: float, count: int
) -> None:
    array = np.array(sent)
    left = overlap.exposed(array, np.full_like(array, computed), np.full_like(array, count))
    assert (left <= array).all()
    assert (left >= array / count * (1 - 1e-9)).all()
    assert (left >= array - computed * (1 + 1e-9)).all()  # rounded as `left` is


@given(seconds, seconds, st.integers(2, 16))
def test_a_ring_hides_behind_the_blocks_it_attends_to(
    keys: float, attention: float, ranks: int
) -> None:
    """Step by step: pass on what is here, attend to it, wait for the next."""
    now = 0.0
    for _ in range(ranks - 1):
        now += max(keys, attention / ranks)
    now += attention / ranks
    steps = (ranks - 1) * keys
    left = steps - overlap.ring_hidden(steps, attention, ranks)
    assert now == pytest.approx(attention + left, abs=1e-9)


@given(seconds, seconds, st.floats(0, 1))
def test_a_host_of_nothing_adds_nothing_and_a_little_adds_a_little(
    device: float, host: float, share: float
) -> None:
    latency = share * device
    assert overlap.launched(device, 0.0, latency) == device
    assert overlap.launched(device, 1e-12, latency) == pytest.approx(device, abs=1e-9)
    both = overlap.launched(device, host, latency)
    assert both >= max(device, host + latency) * (1 - 1e-9) - 1e-12
    assert both <= device + host + 1e-9
    assert overlap.launched(device, host * 2, latency) >= both * (1 - 1e-9)
    assert overlap.launched(device * 2, host, latency) >= both * (1 - 1e-9)


def layer(blocks: Blocks, **degrees: int) -> BlockCost:
    return blocks.cost(blocks.kinds[0], Division.of(Layout(**degrees)))


def slow_ring(factor: float) -> ClusterSpec:
    cluster = gpu_cluster(nodes=8)
    tiers = tuple(
        tier.replace(bandwidth_bytes_per_second=tier.bandwidth_bytes_per_second * factor)
        for tier in cluster.tiers
    )
    return cluster.replace(tiers=tiers)


def core_seconds(blocks: Blocks, phase: str, cp: int) -> float:
    graph = blocks.graphs.graph(blocks.kinds[0], blocks.view(1, 1, cp))
    cores = [n for n in graph if not isinstance(n, Collective) and n.kind in CORE_KINDS]
    return sum(blocks.seconds(core, phase)[0] for core in cores)  # type: ignore[arg-type]


@pytest.mark.parametrize("cp", [2, 4, 8])
def test_quick_rings_leave_only_the_last_gradients(cp: int) -> None:
    """A long sequence on quick links: nothing forward, one step of gradients backward."""
    blocks = asked(wide(), slow_ring(1e3), plain_runtime(), seq=16_384)
    cost = layer(blocks, cp=cp)
    rows, width = 16_384 // cp, 2 * 8 * 64
    assert cost.forward_tp == pytest.approx(0.0, abs=1e-12)
    assert cost.backward_tp == pytest.approx(4e-6 + rows * width * 4 / 100e12)


@pytest.mark.parametrize("cp", [2, 4, 8])
def test_slow_rings_hide_all_but_one_block_of_attention(cp: int) -> None:
    blocks = asked(wide(), slow_ring(1e-3), plain_runtime(), seq=1024)
    cost = layer(blocks, cp=cp)
    keys = 4e-6 + 1024 // cp * 2 * 8 * 64 * 2 / 100e6
    hidden = (1 - 1 / cp) * core_seconds(blocks, "forward", cp)
    assert cost.forward_tp == pytest.approx((cp - 1) * keys - hidden)


@pytest.mark.parametrize("slowdown", [0.0, 0.3])
def test_what_a_ring_hides_slows_the_attention(slowdown: float) -> None:
    blocks = asked(wide(), slow_ring(1.0), plain_runtime(), seq=1024)
    free, slowed = (layer(with_traits(blocks, overlap_slowdown=s), cp=4) for s in (0, slowdown))
    graph = blocks.graphs.graph(blocks.kinds[0], blocks.view(1, 1, 4))
    ring = [n for n in graph if isinstance(n, Collective) and n.phase == "forward"]
    sent = sum(
        n.count * float(blocks.collective("send_recv", 4, 1, 1, n.message_bytes)) for n in ring
    )
    assert slowed.forward - free.forward == pytest.approx(slowdown * (sent - free.forward_tp))
