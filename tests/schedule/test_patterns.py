"""Patterns and lowering: complete, ordered, and what torch.distributed.pipelining builds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedule import lowering, patterns
from planner.schedule.action import Action, Kind
from planner.schedule.check import ScheduleError, check, render

names = st.sampled_from(sorted(patterns.PATTERNS))


@given(names, st.integers(1, 9), st.integers(1, 20))
def test_every_schedule_passes_the_check(name: str, stages: int, microbatches: int) -> None:
    check(patterns.PATTERNS[name](stages, microbatches), stages, microbatches)
    check(lowering.lower(name, stages, microbatches), stages, microbatches)


@given(names, st.integers(1, 9), st.integers(1, 20))
def test_in_flight_is_the_most_forwards_without_their_backward(
    name: str, stages: int, microbatches: int
) -> None:
    for stage, order in enumerate(patterns.PATTERNS[name](stages, microbatches)):
        held = most = 0
        for action in order:
            held += 1 if action.kind == Kind.FORWARD else -1
            most = max(most, held)
        assert most == patterns.in_flight(name, stage, stages, microbatches)
        assert held == 0


@given(names, st.integers(2, 6), st.integers(1, 12))
def test_lowering_pairs_sends_and_receives(name: str, stages: int, microbatches: int) -> None:
    actions = [action for order in lowering.lower(name, stages, microbatches) for action in order]
    for kind, other, step in (
        (Kind.SEND_FORWARD, Kind.RECEIVE_FORWARD, 1),
        (Kind.SEND_BACKWARD, Kind.RECEIVE_BACKWARD, -1),
    ):
        sent = {(a.stage + step, a.microbatch) for a in actions if a.kind == kind}
        received = {(a.stage, a.microbatch) for a in actions if a.kind == other}
        assert sent == received
        assert len(sent) == (stages - 1) * microbatches


def test_a_missing_action_is_named() -> None:
    grid = patterns.one_f_one_b(2, 3)
    with pytest.raises(ScheduleError, match="1B2 appears 0 times"):
        check((grid[0], grid[1][:-1]), 2, 3)


def test_a_backward_before_its_forward_is_marked() -> None:
    order = tuple(Action.parse(word) for word in ("0B0", "0F0"))
    with pytest.raises(ScheduleError, match=">>0B0<<"):
        check((order,), 1, 1)


def test_a_deadlock_is_found_and_marked() -> None:
    words = (
        "0F0 0SEND_F0 0RECV_B1 0B1 0F1 0SEND_F1 0RECV_B0 0B0",
        "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1",
    )
    grid = tuple(tuple(Action.parse(word) for word in line.split()) for line in words)
    with pytest.raises(ScheduleError, match="before 0F1"):
        check(grid, 2, 2)
    swapped = tuple(
        tuple(Action.parse(word) for word in line.split())
        for line in (
            "0RECV_B0 0F0 0SEND_F0 0B0",
            "1RECV_F0 1F0 1B0 1SEND_B0",
        )
    )
    with pytest.raises(ScheduleError, match=r"deadlock: rank 0 waits for ever at 0RECV_B0"):
        check(swapped, 2, 1)


def test_golden_1f1b() -> None:
    assert render(patterns.one_f_one_b(3, 4)).splitlines() == [
        "rank 0: 0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3",
        "rank 1: 1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3",
        "rank 2: 2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3",
    ]
