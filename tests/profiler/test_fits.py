"""Fits of collective times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.profile import CollectiveSample
from profiler import fits

SIZES = np.array([1 << n for n in range(10, 26, 2)], dtype=np.float64)
ALPHAS = st.floats(min_value=1e-6, max_value=1e-2)
BANDWIDTHS = st.floats(min_value=1e8, max_value=1e12)


def sample(size: float, seconds: float, **changes: object) -> CollectiveSample:
    values = {
        "op": "all_reduce",
        "backend": "gloo",
        "ranks": 2,
        "message_bytes": size,
        "seconds": seconds,
        "spread": 0.0,
        "repeats": 5,
    }
    return CollectiveSample.model_validate(values | changes)


@given(ALPHAS, BANDWIDTHS)
def test_recovers_latency_and_bandwidth(alpha: float, bandwidth: float) -> None:
    seconds = alpha + SIZES / bandwidth
    found_alpha, per_byte = fits.alpha_beta(SIZES, seconds)
    assert alpha + SIZES / bandwidth == pytest.approx(found_alpha + SIZES * per_byte, rel=1e-3)
    # a bandwidth that hides behind the latency at every size cannot be seen
    if SIZES[-1] / bandwidth > 0.1 * alpha:
        assert 1 / per_byte == pytest.approx(bandwidth, rel=0.02)
    if alpha > 0.1 * SIZES[0] / bandwidth:
        assert found_alpha == pytest.approx(alpha, rel=0.02)


@given(ALPHAS, BANDWIDTHS, st.integers(min_value=4, max_value=7))
def test_one_bad_sample_does_not_pull_the_fit(alpha: float, bandwidth: float, bad: int) -> None:
    seconds = alpha + SIZES / bandwidth
    seconds[bad] *= 5
    found_alpha, per_byte = fits.alpha_beta(SIZES, seconds)
    good = np.arange(len(SIZES)) != bad
    errors = np.abs((found_alpha + SIZES * per_byte) / (alpha + SIZES / bandwidth) - 1)[good]
    assert np.median(errors) < 0.35


@given(st.lists(st.floats(min_value=1e-7, max_value=10), min_size=8, max_size=8))
def test_both_are_positive_for_any_samples(seconds: list[float]) -> None:
    alpha, per_byte = fits.alpha_beta(SIZES, np.array(seconds))
    assert alpha > 0
    assert per_byte > 0
    assert np.isfinite([alpha, per_byte, 1 / per_byte]).all()


def test_small_messages_do_not_set_the_bandwidth() -> None:
    """A link whose buffers let small messages pass free."""
    seconds = 1e-4 + np.maximum(SIZES - (128 << 10), 0) / 1e8
    _, per_byte = fits.alpha_beta(SIZES, seconds)
    assert 1 / per_byte == pytest.approx(1e8, rel=0.5)


def test_one_fit_per_case_with_its_error() -> None:
    samples = [
        sample(size, 1e-4 + size / 1e9, groups=groups) for size in SIZES for groups in (1, 2)
    ]
    found = fits.fit_all([*samples, sample(1024, 1.0, ranks=4)])
    assert [(fit.ranks, fit.groups) for fit in found] == [(2, 1), (2, 2)]
    assert all(fit.median_error < 0.01 for fit in found)
    assert found[0].latency_seconds == pytest.approx(1e-4, rel=0.02)


def test_the_same_group_over_more_nodes_is_another_case() -> None:
    samples = [
        sample(size, nodes * (1e-4 + size / 1e9), nodes=nodes, ranks=4)
        for size in SIZES
        for nodes in (1, 2)
    ]
    assert [
        (fit.nodes, round(fit.bandwidth_bytes_per_second / 1e9, 2)) for fit in fits.fit_all(samples)
    ] == [(1, 1.0), (2, 0.5)]
