import pytest

from planner.spec.layout import Layout, make_stages
from planner.spec.plan import Plan
from reports.results import PlanResult, loss_parity, machine_of
from reports.verdict import verdict
from tests.reports.conftest import (
    MIB,
    PIPELINE,
    make_machine,
    make_measured,
    make_plan,
    make_result,
    make_timeline,
)


def test_errors_and_peaks_of_a_run() -> None:
    result = make_result(PIPELINE, pace=1.25, peak_mib=130.0)
    assert result.error == pytest.approx(1 / 1.25 - 1)
    assert (result.predicted_peak_bytes, result.measured_peak_bytes) == (120 * MIB, 130 * MIB)
    assert result.memory_kept is False
    assert make_result(PIPELINE, pace=1.25).memory_kept is True


def test_a_plan_that_did_not_run_has_no_errors() -> None:
    result = make_result(PIPELINE, pace=None)
    assert result.error is result.measured_seconds is result.measured_peak_bytes is None
    assert result.memory_kept is None


def test_a_stage_promises_for_its_own_ranks() -> None:
    plan = make_plan(Layout(dp=2, pp=2))
    assert plan.predicted is not None
    uneven = plan.predicted.replace(stage_peak_bytes=(100.0, 120 * MIB))
    plan = plan.replace(predicted=uneven)
    result = PlanResult(plan, make_timeline(plan.layout, 8), make_measured(plan, peak_mib=1.0))
    assert [peak.predicted_bytes for peak in result.peaks] == [100.0, 100.0, 120 * MIB, 120 * MIB]
    assert [peak.kept for peak in result.peaks] == [False, False, True, True]


def test_uneven_stages_are_named() -> None:
    plan = make_plan(Layout(pp=2))
    plan = Plan.model_validate({**dict(plan), "stages": make_stages(plan.layout, (3, 1))})
    assert PlanResult(plan, make_timeline(plan.layout, 8)).name.endswith("stages=3,1")


def test_loss_parity_is_the_largest_relative_difference() -> None:
    plan = make_plan(PIPELINE)
    run = make_measured(plan, loss=(4.0, 3.0, 2.0))
    reference = make_measured(plan, loss=(4.0, 2.5))
    assert loss_parity(run, reference) == pytest.approx(0.2)
    assert loss_parity(make_measured(plan, loss=()), reference) is None


def test_the_machine_is_the_one_that_ran() -> None:
    assert machine_of([make_result(PIPELINE, None), make_result(PIPELINE)]) == make_machine()
    assert machine_of([make_result(PIPELINE, None)]) is None


def test_the_verdict_names_choice_fastest_errors_memory_and_losses() -> None:
    fast, slow = Layout(dp=4, micro_batch=4), Layout(pp=4, micro_batch=2)
    right = verdict([make_result(fast, 1.25), make_result(slow, 1.0)])
    assert right[0].startswith(f"The best plan is {fast}:")
    assert "(−20.0%)" in right[0]
    assert right[1:] == (
        "It is also the fastest of the 2 plans that ran.",
        "Step times are predicted with a median error of 10.0% (largest −20.0%).",
        "No rank held more memory than predicted.",
        "Losses differ from those of one rank by at most 3.0e-07 (relative).",
    )


def test_the_verdict_admits_a_wrong_choice_and_a_broken_promise() -> None:
    chosen, other = Layout(dp=4, micro_batch=4), Layout(pp=4, micro_batch=2)
    wrong = verdict([make_result(chosen, 10.0), make_result(other, 1.0, peak_mib=121.0)])
    assert f"The fastest of the 2 plans that ran is {other}" in wrong[1]
    assert wrong[3] == f"Ranks held more memory than predicted with {other}."


def test_the_verdict_without_runs_or_plans() -> None:
    (only,) = verdict([make_result(PIPELINE, None)])
    assert only.endswith("nothing measured.")
    assert verdict([]) == ("There are no plans.",)
    mixed = verdict([make_result(PIPELINE), make_result(Layout(dp=4, micro_batch=4), None)])
    assert mixed[0].endswith("not measured.")
