"""Laws of a spread: quantiles and shares are inverse, a log-normal one is exact."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.calibration import Calibration
from planner.spec.spread import LEVELS, NORMAL, SAFE, Spread

levels = st.floats(0.001, 0.999)
spreads = st.lists(st.floats(0.3, 3), min_size=len(LEVELS), max_size=len(LEVELS)).map(
    lambda ratios: Spread(tuple(sorted(ratios)))
)


@given(spreads, levels)
def test_a_share_and_its_quantile_are_inverse(spread: Spread, level: float) -> None:
    assert 1 - spread.share_above(spread.quantile(level)) == pytest.approx(level, abs=1e-3)


@given(spreads, st.floats(0.01, 10), st.floats(1, 10))
def test_less_room_is_never_safer(spread: Spread, ratio: float, more: float) -> None:
    assert 0 <= spread.share_above(ratio * more) <= spread.share_above(ratio) <= 1


@given(spreads, st.integers(0, len(LEVELS) - 1))
def test_it_goes_through_its_quantiles(spread: Spread, place: int) -> None:
    assert spread.quantile(LEVELS[place]) == pytest.approx(spread.quantiles[place], rel=1e-4)


@given(st.floats(0.5, 1), st.floats(1.01, 2), levels)
def test_between_is_log_normal(low: float, high: float, level: float) -> None:
    spread = Spread.between(low, high)
    middle, sigma = math.log(low * high) / 2, math.log(high / low) / 2 / NORMAL.inv_cdf(0.9)
    expected = math.exp(middle + sigma * NORMAL.inv_cdf(level))
    assert spread.quantile(level) == pytest.approx(expected)
    wider = spread.wider(1.3)
    assert wider.quantile(0.9) == pytest.approx(high * 1.3)
    assert wider.quantile(0.1) == pytest.approx(low / 1.3)
    assert wider.quantile(0.5) == pytest.approx(spread.quantile(0.5))


def test_the_safe_side_is_one_of_a_hundred() -> None:
    spread = Spread.between(0.8, 1.25)
    assert spread.share_above(spread.quantile(SAFE)) == pytest.approx(0.01)
    assert spread.share_above(0.0) == 1.0


def calibration(**changes: object) -> Calibration:
    values = {"accelerator": "a", "runtime": "r", "constants": {}, "runs": 9, "date": "2026"}
    return Calibration.model_validate(values | {"sources": ()} | changes)


def test_a_calibration_of_an_older_version_has_the_spread_of_its_band() -> None:
    old = calibration(memory_low=0.9, memory_high=1.2)
    assert old.memory_spread.quantile(0.1) == pytest.approx(0.9)
    assert old.memory_spread.quantile(0.9) == pytest.approx(1.2)


def test_a_borrowed_calibration_spreads_wider() -> None:
    own = calibration(memory_quantiles=tuple(0.8 + 0.05 * i for i in range(len(LEVELS))))
    lent = own.borrowed_for("b", "r")
    assert lent.memory_spread.quantile(0.99) > own.memory_spread.quantile(0.99)
    assert lent.memory_spread.quantile(0.01) < own.memory_spread.quantile(0.01)


@pytest.mark.parametrize("wrong", [(1.0, 2.0), (0.0,) * 9, (2.0, 1.0, *(3.0,) * 7)])
def test_quantiles_that_fall_or_are_too_few_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be 9 positive ratios"):
        calibration(memory_quantiles=wrong)
