"""Laws of collective times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.collectives import RING_STEPS, CollectiveTimes
from planner.spec.profile import CollectiveSample, Machine, Profile
from planner.spec.provenance import Provenance
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
