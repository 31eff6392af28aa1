"""Measured runs in chunks are predicted as `estimate` predicts their layouts."""

import dataclasses

import pytest

from planner.calibration.predicted_runs import RunPrediction, predict_runs
from planner.search.question import ask
from planner.search.told_layout import plan_of_layout
from reports.validation.replayed import CLOSED, predict_replayed
from tests.spec.runs.test_case import case

LAYOUT = "dp=8 tp=1 pp=2 vpp=2 micro_batch=1 zero=1 recompute=none"
IN_CHUNKS = {"dp": 8, "tp": 1, "pp": 2, "vpp": 2, "micro_batch": 1, "global_batch": 16}


def test_a_run_in_chunks_is_predicted_as_its_layout_is_estimated() -> None:
    found = case(**IN_CHUNKS)
    blocks = ask(found.model, found.cluster, 128, 16, "bf16", found.runtime)
    plan = plan_of_layout(blocks, LAYOUT)
    assert plan.predicted is not None
    (predicted,) = predict_replayed([found])
    assert isinstance(predicted, RunPrediction)
    assert predicted.step_seconds == pytest.approx(plan.predicted.step_seconds, rel=1e-9)
    assert predicted.low_seconds == pytest.approx(plan.predicted.low_seconds, rel=1e-9)


def test_other_runs_and_impossible_numbers_keep_the_closed_form() -> None:
    """And say so where they have chunks."""
    cases = [case(), case(n_heads=1, n_kv_heads=1)]
    assert predict_replayed(cases) == predict_runs(cases)
    odd = [case(**IN_CHUNKS, n_layers=3)]
    (found,), (closed,) = predict_replayed(odd), predict_runs(odd)
    assert isinstance(closed, RunPrediction)
    assert found == dataclasses.replace(closed, notes=(*closed.notes, CLOSED))
