"""Validation: the metrics' laws, the baselines' honesty, and every row accounted for."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.calibration.predicted_runs import Refused, RunPrediction
from planner.spec.runs.case import Case
from planner.spec.runs.run import Run
from reports.validation.baselines import NAMES, baseline_seconds
from reports.validation.validation import NOT_SELECTED, Validation, validate
from tests.reports.validation.rows import GIB, judged, measured, predictor, run, truth

TIMES = st.lists(st.floats(0.1, 100.0), min_size=2, max_size=12)
ZERO = {"median_ape": 0.0, "mean_ape": 0.0, "p90_ape": 0.0, "bias": 0.0}


def close(value: Any, expected: float) -> bool:
    return bool(value == pytest.approx(expected, abs=1e-9))


@given(TIMES)
def test_a_perfect_prediction_has_no_error_no_disorder_and_no_regret(times: list[float]) -> None:
    metrics = judged(measured(times, peak_mem_gib=1.0)).metrics()
    assert metrics["time"] == {**ZERO, "coverage": 1.0}
    assert metrics["memory"] == {**ZERO, "share_below": 0.0, "share_unsafe": None}
    order = metrics["order"]
    assert order["pairwise"] in (None, 1.0)
    assert close(order["mean_regret"], 0.0)
    assert close(order["max_regret"], 0.0)


@given(TIMES, st.lists(st.floats(0.5, 2.0), min_size=12, max_size=12), st.floats(0.01, 100.0))
def test_scaling_all_predictions_leaves_order_and_regret(
    times: list[float], noise: list[float], scale: float
) -> None:
    def noisy(case: Case) -> float:
        return truth(case) * noise[case.run.line - 2]

    one = judged(measured(times), noisy).metrics()["order"]
    other = judged(measured(times), lambda case: scale * noisy(case)).metrics()["order"]
    assert one == pytest.approx(other)


@given(TIMES, st.floats(0.2, 5.0))
def test_a_constant_factor_is_the_error_and_the_bias(times: list[float], factor: float) -> None:
    time = judged(measured(times), lambda case: factor * truth(case)).metrics()["time"]
    for key in ("median_ape", "mean_ape", "p90_ape"):
        assert close(time[key], abs(factor - 1.0))
    assert close(time["bias"], factor - 1.0)
    assert time["coverage"] == float(0.9 * factor <= 1.0 <= 1.1 * factor)


@given(TIMES)
def test_the_opposite_order_has_no_pair_right_and_the_largest_regret(times: list[float]) -> None:
    assume(max(times) > 1.03 * min(times))
    order = judged(measured(times), lambda case: 1.0 / truth(case)).metrics()["order"]
    assert order["pairwise"] == 0.0
    assert close(order["mean_regret"], max(times) / min(times) - 1.0)


def test_ties_count_half_and_regret_the_mean() -> None:
    order = judged(measured([1.0, 2.0, 3.0]), lambda _: 7.0).metrics()["order"]
    assert (order["pairwise"], order["mean_regret"]) == (0.5, 1.0)


def test_times_within_the_noise_are_not_ordered() -> None:
    order = judged(measured([1.0, 1.01]), lambda case: 1.0 / truth(case)).metrics()["order"]
    assert order["pairwise"] is None
    assert close(order["mean_regret"], 0.01)


def test_questions_are_not_mixed() -> None:
    runs = [*measured([1.0, 2.0]), *measured([9.0, 5.0], global_batch=64), run(step_time_s=1.5)]
    runs += measured([1.0], model="alone")
    metrics = judged(runs, lambda case: 1.0 / truth(case)).metrics()
    assert metrics["order"]["groups"] == 2
    regrets = [2.0 / 1.0 - 1.0, 9.0 / 5.0 - 1.0]
    assert close(metrics["order"]["mean_regret"], sum(regrets) / 2)
    assert close(metrics["order"]["max_regret"], 1.0)


def groups() -> list[Run]:
    """Three models on two numbers of devices, and layouts of both recompute modes."""
    runs = []
    for i, (model, layers) in enumerate((("a", 2), ("b", 4), ("c", 8))):
        for dp, devices in ((4, 16), (8, 32)):
            runs += measured(
                [1.0 + i, 1.5 + i], model=model, n_layers=layers, dp=dp, n_gpus=devices
            )
    return runs


@pytest.mark.parametrize("name", NAMES)
@given(factor=st.floats(1e-3, 1e3))
def test_a_baseline_never_sees_the_group_it_predicts(name: str, factor: float) -> None:
    clean = judged(groups())
    poisoned_group = clean.outcomes[0].group
    poisoned = [
        run(each.line, **{**fields(each), "step_time_s": (each.step_time_s or 0) * factor})
        if (each.model, each.n_gpus) == poisoned_group
        else each
        for each in groups()
    ]
    before = baseline_seconds(clean.outcomes, name)
    after = baseline_seconds(judged(poisoned).outcomes, name)
    for outcome, one, other in zip(clean.outcomes, before, after, strict=True):
        if outcome.group == poisoned_group:
            assert one == other


def fields(each: Run) -> dict[str, Any]:
    return {name: getattr(each, name) for name in ("model", "n_layers", "dp", "n_gpus")}


def test_a_poisoned_group_reaches_the_other_groups() -> None:
    clean = baseline_seconds(judged(groups()).outcomes, "constant")
    doubled = [
        run(r.line, **{**fields(r), "step_time_s": 1e3}) if r.model == "a" else r for r in groups()
    ]
    poisoned = baseline_seconds(judged(doubled).outcomes, "constant")
    moved = [a != b for a, b in zip(clean, poisoned, strict=True)]
    assert any(moved)


def test_a_constant_speed_is_found_by_the_constant_and_the_bubble_by_the_other() -> None:
    speed = 1e9
    for index, name in enumerate(NAMES):
        shaped = [
            run(2 + i, model=m, micro_batch=mb, step_time_s=1.0)
            for i, (m, mb) in enumerate((("a", 1), ("a", 4), ("b", 1), ("b", 2), ("c", 8)))
        ]
        outcomes = judged(shaped).outcomes
        times = [o.device_flops * (o.bubble if index else 1.0) / speed for o in outcomes]
        exact = [
            run(2 + i, model=o.model, micro_batch=r.micro_batch, step_time_s=t)
            for i, (o, r, t) in enumerate(zip(outcomes, shaped, times, strict=True))
        ]
        found = baseline_seconds(judged(exact).outcomes, name)
        assert found == pytest.approx(times)
        assert close(judged(exact).metrics()["baselines"][name]["median_ape"], 0.0)


def test_a_source_of_one_group_has_no_baseline() -> None:
    validation = judged(measured([1.0, 2.0]))
    assert set(validation.baselines["constant"]) == {None}
    assert validation.metrics()["baselines"]["constant"]["median_ape"] is None


def test_the_bubble_and_the_recomputation_are_counted() -> None:
    (plain,) = judged([run()]).outcomes
    (again,) = judged([run(recompute="full")]).outcomes
    (interleaved,) = judged([run(vpp=2)]).outcomes
    microbatches = 32 / (4 * 2)
    assert close(plain.bubble, (microbatches + 1) / microbatches)
    assert close(interleaved.bubble, (microbatches + 0.5) / microbatches)
    assert close(again.flops / plain.flops, 4 / 3)


def test_unsafe_memory_predictions_are_counted() -> None:
    runs = [run(2 + i, step_time_s=None, peak_mem_gib=m) for i, m in enumerate((1.0, 1.04, 1.2))]
    metrics = judged(runs, lambda _: 1.0).metrics()
    assert close(metrics["memory"]["share_below"], 1 / 3)
    assert metrics["time"]["median_ape"] is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_feasibility_is_that_of_a_confusion_table(rows: list[tuple[bool, bool]]) -> None:
    runs = [
        run(2 + i, step_time_s=None if failed else 1.0, notes="OOM" if failed else None)
        for i, (failed, _) in enumerate(rows)
    ]
    found = judged(runs, lambda _: 1.0, risky=lambda case: rows[case.run.line - 2][1])
    got = found.metrics()["feasibility"]
    hits = rows.count((True, True))
    failed, alarms = sum(f for f, _ in rows), sum(r for f, r in rows if not f)
    if not failed:
        assert set(got.values()) == {None}
        return
    assert close(got["recall"], hits / failed)
    assert got["precision"] == (pytest.approx(hits / (hits + alarms)) if hits + alarms else None)
    if failed < len(rows):
        specificity = 1.0 - alarms / (len(rows) - failed)
        assert close(got["balanced_accuracy"], (hits / failed + specificity) / 2)
    else:
        assert got["balanced_accuracy"] is None


def test_the_safe_side_and_the_chance_to_run_out_are_judged_as_they_were_promised() -> None:
    """Measured 2 GiB: a safe side of 1.8 is unsafe, one of 1.95 is within the 5 %."""
    sides, chances = {2: 1.8, 3: 1.95, 4: 9.0}, {2: 0.2, 3: 0.4, 4: 0.9}

    def predict(cases: Any) -> list[RunPrediction]:
        return [
            RunPrediction(
                1.0,
                1.0,
                1.0,
                GIB,
                False,
                safe_peak_bytes=sides[case.run.line] * GIB,
                run_out_probability=chances[case.run.line],
            )
            for case in cases
        ]

    runs = [
        run(2, peak_mem_gib=2.0),
        run(3, peak_mem_gib=2.0),
        run(4, step_time_s=None, notes="OOM"),
    ]
    found = validate(runs, predict=predict).metrics()
    assert close(found["memory"]["share_unsafe"], 1 / 2)
    assert close(found["feasibility"]["chance_failed"], 0.9)
    assert close(found["feasibility"]["chance_ran"], 0.3)


def test_a_source_without_failures_says_nothing_about_them() -> None:
    runs = [run(2, step_time_s=None, notes="OOM"), run(3), run(4, source="other")]
    found = judged(runs, lambda _: 1.0, risky=lambda case: case.run.line in (2, 4))
    assert found.metrics()["feasibility"]["precision"] == 1.0
    assert found.metrics("other")["feasibility"]["precision"] is None


def test_every_row_is_used_or_counted_under_its_reason() -> None:
    def refusing(cases: Any) -> list[Any]:
        predict = predictor(lambda _: 1.0)
        return [Refused("no") if c.run.line == 5 else predict([c])[0] for c in cases]

    runs = [run(2), run(3, warning=True), run(4, tp=4, dp=2), run(5), run(6, n_heads=None)]
    found = validate(runs, where="tp == 2", predict=refusing)
    assert found.skipped == {
        "warning=1: the source contradicts itself": 1,
        "n_heads unknown": 1,
        "no": 1,
        NOT_SELECTED: 1,
    }
    assert found.rows == len(runs) == len(found.outcomes) + sum(found.skipped.values())


def test_sources_are_judged_apart_and_together() -> None:
    runs = [*measured([1.0, 2.0]), *measured([1.0, 2.0], source="other")]
    found = judged(runs, lambda case: truth(case) * (2.0 if case.run.source == "other" else 1.0))
    assert found.sources == ("mine", "other")
    assert close(found.metrics("mine")["time"]["median_ape"], 0.0)
    assert close(found.metrics("other")["time"]["median_ape"], 1.0)
    assert close(found.metrics()["time"]["mean_ape"], 0.5)


def test_the_json_is_the_contract() -> None:
    value = judged([*groups(), run(99, n_heads=None)]).to_json()
    assert list(value) == [
        "schema",
        "rows",
        "used",
        "skipped",
        "time",
        "memory",
        "feasibility",
        "order",
        "baselines",
        "per_source",
        "predictions",
    ]
    assert value["schema"] == "validation/1"
    assert (value["rows"], value["used"], value["skipped"]) == (13, 12, {"n_heads unknown": 1})
    assert set(value["time"]) == {"median_ape", "mean_ape", "p90_ape", "bias", "coverage"}
    asked = {"precision", "recall", "balanced_accuracy", "chance_failed", "chance_ran"}
    assert set(value["feasibility"]) == asked
    assert set(value["order"]) == {"groups", "pairwise", "mean_regret", "max_regret"}
    assert set(value["baselines"]) == {"constant", "flops_bubble"}
    for baseline in value["baselines"].values():
        assert {"median_ape", "mean_ape", "p90_ape", "bias", "pairwise"} <= set(baseline)
    assert set(value["per_source"]) == {"mine"}
    assert value["per_source"]["mine"]["time"] == value["time"]
    assert len(value["predictions"]) == 12


def test_a_prediction_row_says_where_it_comes_from_and_how_far_off_it_is() -> None:
    validation: Validation = judged([run(7, peak_mem_gib=2.0)], lambda case: 1.5 * truth(case))
    (row,) = validation.prediction_rows()
    assert (row["file"], row["line"], row["source"], row["model"]) == (
        "mine.csv",
        7,
        "mine",
        "gpt-x",
    )
    assert (row["n_gpus"], row["global_batch"], row["seq_len"]) == (16, 32, 128)
    assert (row["measured_step_seconds"], row["predicted_step_seconds"]) == (1.0, 1.5)
    assert math.isclose(row["error"], 0.5)
    assert (row["measured_peak_bytes"], row["predicted_peak_bytes"]) == (2 * GIB, GIB)
    assert math.isclose(row["memory_error"], -0.5)
    assert row["low_seconds"] <= row["predicted_step_seconds"] <= row["high_seconds"]
