"""Predictions of measured runs are those of `estimate` for the same layout."""

import pytest

from planner.calibration.predicted_runs import AT_RISK, Refused, RunPrediction, predict_runs
from planner.search.question import ask
from planner.search.told_layout import plan_of_layout
from planner.spec import catalog
from planner.spec.runs.case import make_cases
from planner.spec.runs.run import read_runs
from tests.spec.runs.test_case import case

LAYOUT = "dp=4 tp=2 pp=2 micro_batch=2 zero=1 recompute=none"


def test_a_run_is_predicted_as_its_layout_is_estimated() -> None:
    found = case()
    (predicted,) = predict_runs([found])
    assert isinstance(predicted, RunPrediction)
    blocks = ask(found.model, found.cluster, 128, 32, "bf16", found.runtime)
    plan = plan_of_layout(blocks, LAYOUT)
    assert plan.predicted is not None
    assert predicted.step_seconds == pytest.approx(plan.predicted.step_seconds, rel=0.02)
    assert predicted.peak_bytes == pytest.approx(plan.predicted.peak_bytes, rel=0.02)


def test_predictions_keep_the_order_of_the_runs_and_stand_in_their_band() -> None:
    runs = read_runs(catalog.FOLDER / "runs" / "vtrain_single.csv")[::60]
    cases = make_cases(runs).cases
    together = predict_runs(cases)
    assert together == [predict_runs([each])[0] for each in cases]
    for predicted in together:
        assert isinstance(predicted, RunPrediction)
        assert 0 < predicted.low_seconds <= predicted.step_seconds <= predicted.high_seconds


def test_every_device_that_rows_name_takes_the_nearest_calibration() -> None:
    """None may differ from its entry in the catalog, or the calibration does not count for it."""
    known = [
        name for name in catalog.list_accelerators() if catalog.find_accelerator(name).peak_flops
    ]
    cases = [case(gpu=name, gpus_per_node=None, dtype=None, runtime="nemo") for name in known]
    for name, predicted in zip(known, predict_runs(cases), strict=True):
        assert isinstance(predicted, RunPrediction)
        assert "h100-sxm--nemo" in predicted.notes[0], name


def test_a_peak_near_the_memory_is_at_risk() -> None:
    small, large = case(), case(n_layers=48, hidden=16384, n_heads=128, n_kv_heads=128)
    for found in (small, large):
        (predicted,) = predict_runs([found])
        assert isinstance(predicted, RunPrediction)
        limit = AT_RISK * found.cluster.memory_bytes
        assert predicted.at_risk == (predicted.peak_bytes > limit) == (found is large)


def test_what_no_rank_can_hold_is_refused_in_words() -> None:
    assert predict_runs([case(n_heads=1, n_kv_heads=1)]) == [
        Refused("tp=2 does not divide heads=1; 1 does")
    ]
