"""Profile: samples that cannot have been measured are refused; equal samples share a key."""

import pydantic
import pytest

from planner.spec.profile import CollectiveFit, OperatorSample

TIMED = {"dtype": "fp32", "phase": "forward", "seconds": 1e-3, "spread": 0.1, "repeats": 9}


def test_the_order_of_dims_makes_no_other_measurement():
    one = OperatorSample(kind="linear", dims={"m": 1, "k": 2}, **TIMED)
    same = OperatorSample(kind="linear", dims={"k": 2, "m": 1}, **TIMED)
    other = OperatorSample(kind="linear", dims={"k": 1, "m": 2}, **TIMED)
    assert one.key == same.key
    assert len({one.key, other.key, one.replace(phase="backward").key}) == 3


@pytest.mark.parametrize("changes", [{"seconds": 0.0}, {"spread": -1.0}, {"repeats": 0}])
def test_impossible_timings_are_refused(changes):
    with pytest.raises(pydantic.ValidationError):
        OperatorSample(kind="linear", dims={}, **{**TIMED, **changes})


def test_a_collective_has_two_ranks_at_least():
    fields = {"latency_seconds": 1e-6, "bandwidth_bytes_per_second": 1e9, "median_error": 0.1}
    with pytest.raises(pydantic.ValidationError, match="ranks"):
        CollectiveFit(op="all_reduce", backend="gloo", ranks=1, **fields)
