"""Slots: the bubbles of the papers, and the drawn grid."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedule import orders, slots
from planner.schedule.patterns import pattern
from tests.schedule.test_orders import cases


@given(st.sampled_from(["gpipe", "1f1b"]), st.integers(1, 7), st.integers(1, 12))
def test_the_textbook_bubble(name: str, p: int, m: int) -> None:
    found = slots.slots(pattern(name, p, m))
    assert slots.length(found) == 3 * (m + p - 1)
    assert slots.idle_share(found) == pytest.approx((p - 1) / (m + p - 1))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_interleaving_divides_the_bubble_by_the_chunks(p: int, v: int, rounds: int) -> None:
    """Narayanan et al. 2021; a chunk's forward is one slot."""
    found = slots.slots(pattern("interleaved", p, p * rounds, v))
    assert slots.length(found) == 3 * (p * rounds * v + p - 1)


@given(st.integers(2, 7), st.integers(2, 4))
def test_zero_bubble_schedules_wait_less(p: int, rounds: int) -> None:
    """ZB-H1 waits a third of 1F1B (Qi et al. 2023); ZB-V only while it fills: p-1 slots."""
    m = p * rounds
    plain, h1 = (slots.length(slots.slots(pattern(name, p, m))) for name in ("1f1b", "zb-h1"))
    assert plain - 3 * m == 3 * (h1 - 3 * m) == 3 * (p - 1)
    assert slots.length(slots.slots(pattern("zbv", p, m))) == 6 * m + p - 1


@given(cases())
def test_actions_of_a_rank_follow_each_other(case: tuple[str, int, int, int]) -> None:
    grid = orders.grid(orders.orders(*case))
    for order, own in zip(grid, slots.slots(grid), strict=True):
        assert [end - start for start, end in own] == [slots.LENGTHS[a.kind] for a in order]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(own))


def test_drawn_as_papers_draw() -> None:
    grid = pattern("1f1b", 2, 2)
    assert slots.draw(grid, slots.slots(grid)).splitlines() == [
        "         0   1   2   3   4   5   6   7   8",
        "rank 0 | 0F0 0F1 .   .   0B0---- .   0B1----",
        "rank 1 | .   1F0 1B0---- 1F1 1B1----",
    ]
