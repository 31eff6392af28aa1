import pytest

from planner.cost.blocks import Blocks
from planner.simulator.prediction import predict
from planner.spec.layout import Layout
from reports.stage_memory import memory_by_stage
from tests.reports.conftest import MIB, make_plan


@pytest.mark.parametrize("layout", [Layout(pp=2), Layout(pp=2, vpp=2, schedule="interleaved")])
def test_every_place_is_split_and_sums_to_its_promise(layout: Layout) -> None:
    plan = make_plan(layout)
    plan = plan.replace(predicted=predict(Blocks.of_plan(plan), plan))
    assert plan.predicted is not None
    stages = memory_by_stage(plan)
    assert [sum(parts.values()) for parts in stages] == pytest.approx(
        list(plan.predicted.stage_peak_bytes)
    )
    assert all(parts["weights"] > 0 for parts in stages)


def test_an_old_promise_keeps_the_split_it_came_with() -> None:
    plan = make_plan(Layout(pp=2))
    assert plan.predicted is not None
    promised = plan.predicted.replace(stage_peak_bytes=(120 * MIB, 77 * MIB))
    assert memory_by_stage(plan.replace(predicted=promised)) == (
        dict(plan.predicted.memory),
        {"in all": 77 * MIB},
    )


def test_without_a_prediction_there_is_no_split() -> None:
    assert memory_by_stage(make_plan(Layout(pp=2)).replace(predicted=None)) == ()
