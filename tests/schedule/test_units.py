"""Units: lowered as torch.distributed.pipelining lowers, action for action."""

import pytest
from hypothesis import given

from planner.schedule import lowering, orders, sheet, units
from planner.schedule.action import SENDS, WHOLE_STAGE, Action, Kind
from planner.schedule.check import ScheduleError, check
from planner.schedule.orders import problem
from planner.spec.runtime import SCHEDULES
from tests.schedule import torch_schedules
from tests.schedule.test_orders import cases

LOWERED_BY_TORCH = [name for name in SCHEDULES if name not in ("gpipe", "1f1b")]


@pytest.mark.parametrize("name", LOWERED_BY_TORCH)
def test_lowered_as_torch_lowers(name: str) -> None:
    compared = 0
    for ranks in (1, 2, 3, 4):
        for chunks in (1, 2, 3, 5):
            for m in (1, 2, 3, 4, 6, 8, 9):
                if problem(name, ranks, chunks, m) is not None:
                    continue
                expected = torch_schedules.build(name, ranks, chunks, m).pipeline_order_with_comms
                found = units.lower(orders.orders(name, ranks, m, chunks))
                for rank, row in enumerate(found):
                    assert [sheet.cell(unit) for unit in row] == list(map(str, expected[rank]))
                    compared += 1
    assert compared >= 30


@given(cases())
def test_torchs_lowering_is_free_of_deadlock(case: tuple[str, int, int, int]) -> None:
    made = orders.orders(*case)
    check(units.flat(units.lower(made)), made.stages, made.microbatches)


@given(cases())
def test_both_lowerings_do_the_same_in_another_order(case: tuple[str, int, int, int]) -> None:
    """Compute in the same order, the same sends; only FSDP's and the optimiser's actions differ."""

    def kept(order: tuple[Action, ...]) -> list[Action]:
        whole = WHOLE_STAGE - {Kind.REDUCE_GRADIENT}
        return sorted(action for action in order if action.kind not in whole)

    made = orders.orders(*case)
    late, early = lowering.lower(*case), units.flat(units.lower(made))
    assert [kept(order) for order in late] == [kept(order) for order in early]
    if not made.pairs.any():
        for one, other in zip(late, early, strict=True):
            sent = [[a for a in order if a.kind in SENDS] for order in (one, other)]
            assert sent[0] == sent[1]


@given(cases())
def test_a_stage_is_gathered_while_it_computes(case: tuple[str, int, int, int]) -> None:
    for order in units.flat(units.lower(orders.orders(*case))):
        gathered: set[int] = set()
        for action in order:
            if action.kind == Kind.UNSHARD:
                assert action.stage not in gathered
                gathered.add(action.stage)
            elif action.kind == Kind.RESHARD:
                gathered.remove(action.stage)
            elif action.kind in (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT):
                assert action.stage in gathered
            assert len(gathered) <= units.ACTIVE_STAGES
        assert not gathered


def test_a_deadlock_is_named_and_marked() -> None:
    stuck = sheet.read("0F0,2F0,2B0,0B0,0F1,2F1,2B1,0B1\n1F0,1F1,1B0,1B1\n")
    with pytest.raises(ScheduleError, match=r"rank 0 waits for ever at 0B0\n.*>>0B0<<"):
        units.add_communication(stuck)
