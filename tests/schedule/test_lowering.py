"""Lowering: one send and one receive per hop, and every stage reduced and updated once."""

from hypothesis import given

from planner.schedule import lowering, orders
from planner.schedule.action import Action, Kind
from tests.schedule.test_orders import cases


@given(cases())
def test_sends_and_receives_pair_up(case: tuple[str, int, int, int]) -> None:
    made = orders.orders(*case)
    actions = [action for order in lowering.lower(*case) for action in order]
    rank_of = made.rank_of_stage.tolist()
    hops = sum(a != b for a, b in zip(rank_of[1:], rank_of, strict=False))
    for kind, other, step in (
        (Kind.SEND_FORWARD, Kind.RECEIVE_FORWARD, 1),
        (Kind.SEND_BACKWARD, Kind.RECEIVE_BACKWARD, -1),
    ):
        sent = {(a.stage + step, a.microbatch) for a in actions if a.kind == kind}
        received = {(a.stage, a.microbatch) for a in actions if a.kind == other}
        assert sent == received
        assert len(sent) == hops * made.microbatches


@given(cases())
def test_gradients_are_reduced_after_the_last_backward(case: tuple[str, int, int, int]) -> None:
    for order in lowering.lower(*case):
        for stage in {action.stage for action in order}:
            own = [a for a in order if a.stage == stage]
            reduced = own.index(Action(stage, Kind.REDUCE_GRADIENT))
            assert own[-1] == Action(stage, Kind.OPTIMIZER)
            assert all(a.kind not in lowering.LAST_BACKWARD for a in own[reduced:])
            assert own[reduced - 1].kind in {*lowering.LAST_BACKWARD, Kind.SEND_BACKWARD}


def test_the_first_chunk_is_reduced_while_the_second_still_computes() -> None:
    order = lowering.lower("interleaved", 2, 4, 2)[0]
    assert order.index(Action(2, Kind.REDUCE_GRADIENT)) < order.index(Action(0, Kind.BACKWARD, 3))
