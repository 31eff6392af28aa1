"""Held out: the band covers what it says, and no group sets its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.calibration.holdout import FEW, band, coverage, spread
from planner.spec.spread import SAFE


@pytest.mark.parametrize("count", [4, 9, 30, 300])
def test_the_band_covers_four_fifths_of_further_ratios(count: int) -> None:
    """Nominal 80 % on draws that set no band, from few ratios as from many."""
    draws = np.random.default_rng(count).lognormal(0.0, 0.1, (2000, count + 1))
    bands = np.array([band(row[:-1]) for row in draws])
    inside = (bands[:, 0] <= draws[:, -1]) & (draws[:, -1] <= bands[:, 1])
    assert inside.mean() == pytest.approx(0.80, abs=0.03)


@given(st.floats(1e-3, 1e3))
def test_a_group_does_not_set_its_own_band(factor: float) -> None:
    ratios = np.random.default_rng(0).lognormal(0.0, 0.05, 40)
    groups = [index // 10 for index in range(40)]
    moved = ratios.copy()
    moved[:10] = 1e6 * factor
    assert coverage(moved, groups) <= 30 / 40


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=40))
def test_a_band_is_in_order_and_scales(values: list[float]) -> None:
    low, high = band(np.array(values))
    assert 0 < low <= high
    if len(values) >= FEW:
        assert band(2 * np.array(values)) == pytest.approx((2 * low, 2 * high))


@pytest.mark.parametrize("count", [9, 33, 300])
def test_one_of_a_hundred_further_ratios_is_beyond_the_safe_side(count: int) -> None:
    """From many ratios by their order, from few by the log-normal through them."""
    draws = np.random.default_rng(count).lognormal(0.0, 0.1, (1000, count + 1))
    beyond = [spread(row[:-1]).quantile(SAFE) < row[-1] for row in draws]
    assert np.mean(beyond) == pytest.approx(0.01, abs=0.012)


@given(st.lists(st.floats(0.5, 2.0), min_size=FEW, max_size=60))
def test_a_spread_contains_the_band(values: list[float]) -> None:
    found = spread(np.array(values))
    assert list(found.quantiles) == sorted(found.quantiles)
    assert (found.quantiles[2], found.quantiles[6]) == pytest.approx(band(np.array(values)))
