"""Laws of bands of what a calibration has not seen."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.calibration import Calibration, uncalibrated_band
from planner.spec.strange import DIFFERENCES, WIDER, Difference, widened

BANDS = st.tuples(st.floats(0.3, 1.5), st.floats(1.0, 2.0)).map(lambda b: (b[0], b[0] * b[1]))
SETS = st.sets(st.sampled_from(DIFFERENCES))


def reach(band: tuple[float, float]) -> float:
    return math.log(band[1] / band[0]) / 2


def middle(band: tuple[float, float]) -> float:
    return math.log(band[1] * band[0]) / 2


@given(BANDS, SETS, SETS)
def test_more_differences_are_never_narrower_and_the_middle_stays(
    band: tuple[float, float], some: set[Difference], more: set[Difference]
) -> None:
    one, two = widened(*band, some), widened(*band, some | more)
    assert reach(one) <= reach(two) + 1e-12
    assert middle(one) == pytest.approx(middle(band), abs=1e-9)


@given(BANDS, SETS, SETS)
def test_differences_one_after_the_other_are_all_at_once(
    band: tuple[float, float], some: set[Difference], more: set[Difference]
) -> None:
    after = widened(*widened(*band, some), more - some)
    assert after == pytest.approx(widened(*band, some | more))


@given(BANDS)
def test_two_are_more_than_each_and_less_than_one_after_the_other(
    band: tuple[float, float],
) -> None:
    for pair in itertools.combinations(DIFFERENCES, 2):
        alone = [reach(widened(*band, {each})) for each in pair]
        both = reach(widened(*band, set(pair)))
        assert max(alone) < both < reach(band) + sum(math.log(WIDER[each]) for each in pair)


def calibration(**parts: object) -> Calibration:
    known = {
        "accelerator": "a",
        "runtime": "r",
        "constants": {},
        "runs": 9,
        "sources": (),
        "date": "",
    }
    return Calibration.model_validate(known | {"time_low": 0.9, "time_high": 1.1} | parts)


@pytest.mark.parametrize(
    ("pair", "differences"),
    [
        (("a", "r"), set()),
        (("b", "r"), {"accelerator"}),
        (("a", "s"), {"runtime"}),
        (("b", "s"), {"accelerator", "runtime"}),
    ],
)
def test_a_borrowed_band_is_wider_for_what_is_another(
    pair: tuple[str, str], differences: set[Difference]
) -> None:
    lent = calibration().borrowed_for(*pair)
    assert (lent.time_low, lent.time_high) == pytest.approx(widened(0.9, 1.1, differences))


def test_a_mixture_is_strange_to_runs_of_dense_models_only() -> None:
    dense, mixed = calibration(), calibration(mixtures=True)
    assert dense.time_band(experts=False) == mixed.time_band(experts=True) == (0.9, 1.1)
    assert dense.time_band(experts=True) == widened(0.9, 1.1, {"experts"})
    low, high = uncalibrated_band(experts=True)
    assert low < uncalibrated_band(experts=False)[0]
    assert high > uncalibrated_band(experts=False)[1]
