"""Small measured runs and made-up predictors for the tests of validation."""

from collections.abc import Callable, Sequence
from typing import Any

from planner.calibration.predicted_runs import RunPrediction
from planner.spec.runs.case import Case
from planner.spec.runs.run import Run
from reports.validation.validation import Validation, validate
from tests.spec.runs.test_case import PLAIN

GIB = 2.0**30

Seconds = Callable[[Case], float]


def run(line: int = 2, **changes: Any) -> Run:
    """A run of a tiny model; layouts differ by micro_batch, models by name."""
    return Run(file="mine.csv", line=line, **(PLAIN | changes))


def measured(times: Sequence[float], **changes: Any) -> list[Run]:
    """Runs of one question with these step times."""
    return [run(2 + i, step_time_s=seconds, **changes) for i, seconds in enumerate(times)]


def predictor(
    seconds: Seconds, peak: Seconds = lambda _: GIB, risky: Callable[[Case], bool] = lambda _: False
) -> Callable[[Sequence[Case]], list[RunPrediction]]:
    """Predicts these seconds and bytes, with a band of 10 %."""

    def predict(cases: Sequence[Case]) -> list[RunPrediction]:
        return [
            RunPrediction(t := seconds(case), 0.9 * t, 1.1 * t, peak(case), risky(case))
            for case in cases
        ]

    return predict


def truth(case: Case) -> float:
    """What was measured."""
    assert case.step_seconds is not None
    return case.step_seconds


def judged(runs: Sequence[Run], seconds: Seconds = truth, **options: Any) -> Validation:
    """The validation of runs under a made-up predictor."""
    return validate(runs, predict=predictor(seconds, **options))
