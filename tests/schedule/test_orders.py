"""Orders: complete and free of deadlock, refused by name, counted, and made fast."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.schedule import alive, lowering, orders
from planner.schedule.action import COMPUTE_KINDS, Action, Kind
from planner.schedule.check import ScheduleError, check, render
from planner.schedule.orders import SPLIT, V_SHAPED, problem
from planner.schedule.patterns import pattern
from planner.spec.runtime import SCHEDULES

names = st.sampled_from(SCHEDULES)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, int, int, int]:
    """Name, ranks, microbatches and chunks that make a schedule."""
    name, ranks, m = draw(names), draw(st.integers(1, 6)), draw(st.integers(1, 14))
    chunks = orders.default_chunks(name)
    if chunks > 1 and name not in V_SHAPED:
        chunks = draw(st.integers(1, 3))
    assume(problem(name, ranks, chunks, m) is None)
    return name, ranks, m, chunks


@given(cases())
def test_every_schedule_passes_the_check(case: tuple[str, int, int, int]) -> None:
    _, ranks, m, chunks = case
    check(orders.grid(orders.orders(*case)), ranks * chunks, m)
    check(lowering.lower(*case), ranks * chunks, m)


@given(cases())
def test_the_arrays_say_what_the_grid_says(case: tuple[str, int, int, int]) -> None:
    made = orders.orders(*case)
    grid = orders.grid(made)
    assert [len(order) for order in grid] == np.diff(made.starts).tolist()
    flat = [action for order in grid for action in order]
    assert [COMPUTE_KINDS[kind] for kind in made.kind] == [action.kind for action in flat]
    for rank, order in enumerate(grid):
        assert {made.rank_of_stage[action.stage] for action in order} == {rank}
    backwards = {Kind.BACKWARD} if case[0] not in SPLIT else {Kind.INPUT_GRADIENT, Kind.BACKWARD}
    assert sum(action.kind in backwards for action in flat) == made.stages * made.microbatches


@given(cases())
def test_in_flight_is_counted_from_the_grid(case: tuple[str, int, int, int]) -> None:
    made = orders.orders(*case)
    grid = orders.grid(made)
    assert alive.in_flight(made).tolist() == [most_alive(order) for order in grid]
    for stage, most in enumerate(alive.stages_in_flight(made).tolist()):
        own = [a for order in grid for a in order if a.stage == stage]
        assert most == most_alive(tuple(own))


def most_alive(order: tuple[Action, ...]) -> int:
    """By the book: a set of what is held, freed by its last backward."""
    held: set[tuple[int, int | None]] = set()
    most = 0
    for action in order:
        if action.kind == Kind.FORWARD:
            held.add((action.stage, action.microbatch))
        elif action.kind != Kind.INPUT_GRADIENT:
            held.remove((action.stage, action.microbatch))
        most = max(most, len(held))
    assert not held
    return most


@given(st.integers(1, 8), st.integers(1, 20))
def test_gpipe_keeps_all_and_1f1b_few(ranks: int, m: int) -> None:
    assert alive.in_flight(orders.orders("gpipe", ranks, m)).tolist() == [m] * ranks
    few = [min(ranks - rank, m) for rank in range(ranks)]
    assert alive.in_flight(orders.orders("1f1b", ranks, m)).tolist() == few
    split = orders.orders("zb-h1", ranks, ranks * m)
    assert alive.in_flight(split).max() <= ranks
    assert alive.halfway(split).tolist() == [min(rank + 1, ranks * m) for rank in range(ranks)]


def test_pairs_are_a_forward_and_the_backward_after_it() -> None:
    made = orders.orders("dualpipev", 3, 8, 2)
    first = np.flatnonzero(made.pairs)
    assert len(first) > 0
    assert set(made.kind[first]) == {0}
    assert set(made.kind[first + 1]) == {1}
    assert not np.isin(first, made.starts[1:] - 1).any()
    assert not orders.orders("zbv", 3, 8, 2).pairs.any()


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (("1f1b", 4, 2, 8), "1f1b has one chunk per rank, not 2; use chunks=1, or interleaved"),
        (("zbv", 4, 1, 8), "zbv has two chunks per rank, not 1; use chunks=2"),
        (("dualpipev", 4, 2, 7), "got 7 and 8; use 8 microbatches or more, fewer ranks, or zbv"),
        (("interleaved", 4, 2, 9), "into 2 rounds of 4 ranks; use 8 or 12 microbatches"),
        (("gpipe", 0, 1, 4), "ranks=0, must be at least 1"),
        (("dfs", 4, 1, 4), "schedule 'dfs' is unknown; known: gpipe, 1f1b"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    case: tuple[str, int, int, int], says: str
) -> None:
    name, ranks, chunks, m = case
    found = problem(*case)
    assert found is not None
    assert says in found
    with pytest.raises(ScheduleError, match=re.escape(says)):
        orders.orders(name, ranks, m, chunks)


def test_orders_are_shared_and_read_only() -> None:
    made = orders.orders("interleaved", 2, 4, 2)
    assert orders.orders("interleaved", 2, 4, 2) is made
    with pytest.raises(ValueError, match="read-only"):
        made.kind[0] = 1


def test_half_a_million_actions_are_no_python_loop() -> None:
    made = orders.orders("interleaved", 64, 512, 8)
    assert len(made) == 2 * 64 * 8 * 512
    assert alive.in_flight(made)[0] == 2 * 63 + 7 * 64 + 1


def test_golden_1f1b() -> None:
    assert render(pattern("1f1b", 3, 4)).splitlines() == [
        "rank 0: 0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3",
        "rank 1: 1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3",
        "rank 2: 2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3",
    ]
