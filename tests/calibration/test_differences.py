"""Differences: how wide the priors of another cluster are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.calibration.differences import known_calibrations, spreads_between
from planner.calibration.fitting import PRIORS
from planner.spec.calibration import Calibration, Constant


def calibrations(*efficiencies: float, sigma: float = 0.0) -> list[Calibration]:
    """Calibrations that differ in one constant, each known to +-sigma (80 %)."""
    return [
        Calibration(
            accelerator="h100-sxm",
            runtime=f"runtime{place}",
            constants={
                "matmul_efficiency": Constant(
                    value=value, low=value * math.exp(-sigma), high=value * math.exp(sigma)
                )
            },
            runs=1,
            sources=(),
            date="",
        )
        for place, value in enumerate(efficiencies)
    ]


@given(st.floats(0.2, 1.0))
def test_of_fewer_than_two_nothing_is_known(value: float) -> None:
    general = {name: prior.spread for name, prior in PRIORS.items()}
    assert spreads_between([]) == general
    assert spreads_between(calibrations(value)) == general


@given(st.floats(0.1, 0.9), st.floats(1.0, 1.5), st.integers(2, 8))
def test_spread_grows_with_differences_and_not_with_doubt(
    value: float, factor: float, count: int
) -> None:
    alike = spreads_between(calibrations(*[value] * count))["matmul_efficiency"]
    apart = calibrations(*[value, value * factor] * count)
    wider = spreads_between(apart)["matmul_efficiency"]
    doubted = spreads_between(calibrations(*[value, value * factor] * count, sigma=0.2))
    assert alike == pytest.approx(PRIORS["matmul_efficiency"].spread / math.sqrt(count))
    assert wider >= alike / math.sqrt(2) - 1e-12
    assert doubted["matmul_efficiency"] <= wider + 1e-12


def test_with_many_the_spread_is_theirs() -> None:
    found = spreads_between(calibrations(*[0.5, 0.5 * math.exp(0.4)] * 500))
    assert found["matmul_efficiency"] == pytest.approx(0.2, rel=0.01)


def test_a_pair_can_be_left_out() -> None:
    pair = ("h100-sxm", "nanotron")
    everything, others = known_calibrations(), known_calibrations(without=[pair])
    assert len(others) == len(everything) - 1
    assert pair not in {(each.accelerator, each.runtime) for each in others}
