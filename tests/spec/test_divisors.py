"""Divisors: all of a size, and the degrees near a refused one."""

from hypothesis import given
from hypothesis import strategies as st

from planner.spec.divisors import divisors, near, not_divided


@given(st.integers(1, 5000))
def test_all_divisors_ascending(n: int) -> None:
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


@given(st.integers(1, 500), st.integers(1, 5000))
def test_the_nearest_divisors_lie_on_both_sides(degree: int, size: int) -> None:
    every = [d for d in range(1, size + 1) if size % d == 0]
    below, above = [d for d in every if d < degree], [d for d in every if d > degree]
    assert near(degree, size) == (*below[-1:], *above[:1])


def test_a_refusal_names_what_would_do() -> None:
    assert not_divided("ep=9", 9, "experts", 32) == "ep=9 does not divide experts=32; 8 and 16 do"
    assert not_divided("tp=64", 64, "heads", 32) == "tp=64 does not divide heads=32; 32 does"
    with_tp = not_divided("cp=3 (with tp=4)", 3, "seq_len", 64, within=4)
    assert with_tp == "cp=3 (with tp=4) does not divide seq_len=64; 2 and 4 do"
    assert not_divided("cp=3", 3, "seq_len", 65, within=4) == "cp=3 does not divide seq_len=65"
