"""The check: what is missing, misplaced, out of order or stuck is named and marked."""

import pytest

from planner.schedule import lowering
from planner.schedule.action import Action, Grid, Kind
from planner.schedule.check import ScheduleError, check
from planner.schedule.patterns import pattern


def grid(*lines: str) -> Grid:
    return tuple(tuple(Action.parse(word) for word in line.split()) for line in lines)


def test_a_missing_action_is_named() -> None:
    whole = pattern("1f1b", 2, 3)
    with pytest.raises(ScheduleError, match="1B2 appears 0 times"):
        check((whole[0], whole[1][:-1]), 2, 3)


def test_a_double_action_is_marked() -> None:
    with pytest.raises(ScheduleError, match=r"0F0 appears 2 times.*\n.*0F0 >>0F0<<"):
        check(grid("0F0 0F0 0B0"), 1, 1)


def test_what_does_not_belong_is_marked() -> None:
    with pytest.raises(ScheduleError, match=">>0F1<<"):
        check(grid("0F0 0F1 0B0"), 1, 1)
    with pytest.raises(ScheduleError, match=">>0B0<<"):
        check(grid("0F0 0I0 0W0 0B0"), 1, 1)


def test_a_stage_lies_on_one_rank() -> None:
    with pytest.raises(ScheduleError, match="rank 1: 0B0 belongs to stage 0, which rank 0 has"):
        check(grid("0F0", "0B0"), 1, 1)


def test_a_backward_before_its_forward_is_marked() -> None:
    with pytest.raises(ScheduleError, match=">>0B0<<"):
        check(grid("0B0 0F0"), 1, 1)
    with pytest.raises(ScheduleError, match="0W0 comes before 0I0"):
        check(grid("0F0 0W0 0I0"), 1, 1)


def test_a_deadlock_is_found_and_marked() -> None:
    early = grid(
        "0F0 0SEND_F0 0RECV_B1 0B1 0F1 0SEND_F1 0RECV_B0 0B0",
        "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1",
    )
    with pytest.raises(ScheduleError, match="before 0F1"):
        check(early, 2, 2)
    swapped = grid("0RECV_B0 0F0 0SEND_F0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0")
    with pytest.raises(ScheduleError, match=r"deadlock: rank 0 waits for ever at 0RECV_B0"):
        check(swapped, 2, 1)


def test_a_deadlock_without_messages_is_found() -> None:
    """Rank 0 wants the gradient of microbatch 1 before it has run its forward elsewhere."""
    turned = grid("0F0 2F0 2B0 0F1 2F1 2B1 0B0 0B1", "1F0 1B0 1F1 1B1")
    check(turned, 3, 2)
    stuck = grid("0F0 2F0 2B0 0B0 0F1 2F1 2B1 0B1", "1F0 1F1 1B0 1B1")
    with pytest.raises(ScheduleError, match="deadlock: rank 0 waits for ever at 0B0"):
        check(stuck, 3, 2)


def test_neighbours_on_one_rank_exchange_nothing() -> None:
    lowered = lowering.lower("zbv", 2, 4)
    turn = [a for order in lowered for a in order if a.stage in (1, 2) and a.kind != Kind.FORWARD]
    assert Action(1, Kind.SEND_FORWARD, 0) not in turn
    assert Action(2, Kind.RECEIVE_FORWARD, 0) not in turn
    alone = grid("0F0 0SEND_F0 1RECV_F0 1F0 1B0 0B0")
    with pytest.raises(ScheduleError, match="0SEND_F0 does not belong"):
        check(alone, 2, 1)


def test_messages_must_be_received_in_the_order_of_sending() -> None:
    crossed = grid(
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1",
        "1RECV_F1 1F1 1RECV_F0 1F0 1B0 1SEND_B0 1B1 1SEND_B1",
    )
    with pytest.raises(ScheduleError, match="rank 1 receives 0SEND_F1 first, but rank 0 sends"):
        check(crossed, 2, 2)


def test_a_message_nobody_takes_is_named() -> None:
    lonely = grid("0F0 0SEND_F0 0RECV_B0 0B0", "1F0 1B0 1SEND_B0")
    with pytest.raises(ScheduleError, match="1RECV_F0 appears 0 times"):
        check(lonely, 2, 1)
