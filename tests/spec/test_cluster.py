"""Clusters: tiers that cover the devices, and host cores that ranks share."""

import itertools
import math

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.cluster import Accelerator, ClusterSpec, SharedCores, Tier

CARD = Accelerator(name="card", kind="cuda", memory_bytes=80e9)


def tier(devices: int, name: str = "t") -> Tier:
    return Tier(name=name, devices=devices, bandwidth_bytes_per_second=1e9, latency_seconds=1e-6)


def cluster(**changes) -> ClusterSpec:
    fields = {
        "name": "c",
        "accelerator": CARD,
        "nodes": 2,
        "devices_per_node": 8,
        "tiers": (tier(8, "inner"), tier(16, "outer")),
    }
    return ClusterSpec(**{**fields, **changes})


def test_devices_and_memory():
    assert cluster().devices == 16
    assert cluster().memory_bytes == 80e9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tiers": (tier(16), tier(8))}, "smallest first"),
        ({"tiers": (tier(16), tier(16))}, "smallest first"),
        ({"tiers": (tier(8),)}, "joins 8 devices, the cluster has 16"),
        ({"accelerator": CARD.replace(memory_bytes=None)}, "has no memory; add `memory`"),
        ({"tiers": ()}, "at least 1"),
        ({"nodes": 0}, "greater than or equal to 1"),
    ],
)
def test_clusters_that_contradict_themselves_are_refused(changes, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        cluster(**changes)


@pytest.mark.parametrize("field", ["peak_flops", "matmul_flops"])
def test_flops_tables_know_their_dtypes(field):
    with pytest.raises(pydantic.ValidationError, match="bf17"):
        Accelerator(name="card", kind="cuda", **{field: {"bf17": 1.0}})


def test_shared_cores_between_and_beyond_the_measured_points():
    shared = SharedCores(cores=4, slowdown=((1, 1.0), (2, 1.2), (4, 2.0)))
    assert shared.factor(0) == shared.factor(1) == 1.0
    assert shared.factor(2) == pytest.approx(1.2)
    assert shared.factor(3) == pytest.approx(1.6)
    assert shared.factor(4) == pytest.approx(2.0)
    assert shared.factor(8) == pytest.approx(4.0)


def test_without_measurements_ranks_share_the_cores_evenly():
    shared = SharedCores(cores=4)
    assert shared.factor(4) == 1.0
    assert shared.factor(8) == 2.0


@given(
    st.integers(1, 16),
    st.lists(st.tuples(st.integers(2, 32), st.floats(1, 4)), max_size=4, unique_by=lambda p: p[0]),
)
def test_more_busy_ranks_never_compute_faster(cores, points):
    ordered = sorted(points)
    factors = sorted(factor for _, factor in ordered)
    slowdown = ((1, 1.0), *zip((n for n, _ in ordered), factors, strict=True))
    shared = SharedCores(cores=cores, slowdown=slowdown)
    measured = [shared.factor(busy) for busy in range(1, 40)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(measured))
    assert all(math.isfinite(factor) for factor in measured)


@pytest.mark.parametrize(
    "slowdown", [(), ((2, 1.0),), ((1, 2.0),), ((1, 1.0), (4, 2.0), (2, 1.2)), ((1, 1.0), (2, 0.5))]
)
def test_a_slowdown_starts_with_one_rank_and_grows(slowdown):
    with pytest.raises(pydantic.ValidationError, match="must start with"):
        SharedCores(cores=2, slowdown=slowdown)
