import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.training.rate import FLOOR, rate


@given(st.integers(1, 1000), st.integers(0, 200))
def test_rate_rises_to_the_peak_and_falls_to_the_floor(steps: int, warmup: int) -> None:
    rates = [rate(step, steps + warmup, warmup, 2.0) for step in range(steps + warmup)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[warmup] == max(rates) == 2.0
    assert min(rates[warmup:]) >= 2.0 * FLOOR
    assert rate(steps + warmup, steps + warmup, warmup, 2.0) == pytest.approx(2.0 * FLOOR)
