"""Validation: measured runs of many sources against predictions, with the baselines beside.

    rows     all rows read                 used = rows - sum(skipped)
    time, memory, feasibility, order       reports.validation.errors, feasibility, order
    baselines                              the same errors and order for the two baselines

per_source repeats all of it by the source column. Every skipped row is counted under its reason.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.calibration.predicted_runs import Refused, RunPrediction
from planner.graph.counts import model_flops
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import Run, read_runs
from planner.spec.runs.where import compile_where
from reports.validation.baselines import NAMES, baseline_seconds
from reports.validation.errors import error_metrics, memory_metrics, time_metrics
from reports.validation.feasibility import feasibility_metrics
from reports.validation.order import order_metrics
from reports.validation.outcome import Outcome, outcome
from reports.validation.replayed import predict_replayed

SCHEMA = "validation/1"
NOT_SELECTED = "not selected by --where"

Predict = Callable[[Sequence[Case]], Sequence[RunPrediction | Refused]]


@dataclass(frozen=True, slots=True)
class Validation:
    """Every usable run with its prediction. baselines: step seconds by name, per outcome."""

    rows: int
    skipped: dict[str, int]
    outcomes: tuple[Outcome, ...]
    baselines: dict[str, tuple[float | None, ...]]

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources in the order of their first run."""
        return tuple(dict.fromkeys(each.source for each in self.outcomes))

    def metrics(self, source: str | None = None) -> dict[str, Any]:
        """All metrics, of one source or of everything."""
        chosen = [i for i, o in enumerate(self.outcomes) if source in (None, o.source)]
        outcomes = [self.outcomes[i] for i in chosen]
        return {
            "time": time_metrics(outcomes),
            "memory": memory_metrics(outcomes),
            "feasibility": feasibility_metrics(outcomes),
            "order": order_metrics(
                outcomes,
                [o.predicted.step_seconds for o in outcomes],
                [o.predicted.at_risk for o in outcomes],
            ),
            "baselines": {
                name: _baseline(outcomes, [seconds[i] for i in chosen])
                for name, seconds in self.baselines.items()
            },
        }

    def counts(self, source: str | None = None) -> dict[str, int]:
        """How many runs are used, have a time or a peak, or failed."""
        chosen = [each for each in self.outcomes if source in (None, each.source)]
        return {
            "used": len(chosen),
            "timed": sum(each.measured_seconds is not None for each in chosen),
            "with_memory": sum(each.measured_bytes is not None for each in chosen),
            "failed": sum(each.failed for each in chosen),
        }

    def assumptions(self) -> dict[str, int]:
        """How many runs needed which assumption, most frequent first."""
        counted = collections.Counter(note for each in self.outcomes for note in each.notes)
        return dict(counted.most_common())

    def to_json(self) -> dict[str, Any]:
        """The whole as one JSON value, schema validation/1."""
        per_source = {
            name: {"counts": self.counts(name), **self.metrics(name)} for name in self.sources
        }
        return {
            "schema": SCHEMA,
            "rows": self.rows,
            "used": len(self.outcomes),
            "skipped": self.skipped,
            **self.metrics(),
            "per_source": per_source,
            "predictions": self.prediction_rows(),
        }

    def prediction_rows(self) -> list[dict[str, Any]]:
        """One flat row per usable run."""
        return [_row(self, index) for index in range(len(self.outcomes))]


def validate(
    runs: Iterable[Run],
    runtime: str | None = None,
    where: str | None = None,
    predict: Predict = predict_replayed,
) -> Validation:
    """Predict every run that can be predicted. Raises InputError for a wrong runtime or where."""
    runs = tuple(runs)
    selected = runs if where is None else tuple(filter(compile_where(where), runs))
    made = make_cases(selected, runtime, model_flops)
    skipped = collections.Counter(made.skipped)
    if len(selected) < len(runs):
        skipped[NOT_SELECTED] = len(runs) - len(selected)
    outcomes = []
    for case, predicted in zip(made.cases, predict(made.cases), strict=True):
        if isinstance(predicted, Refused):
            skipped[predicted.reason] += 1
        else:
            outcomes.append(outcome(case, predicted))
    baselines = {name: tuple(baseline_seconds(outcomes, name)) for name in NAMES}
    return Validation(len(runs), dict(sorted(skipped.items())), tuple(outcomes), baselines)


def validate_files(
    paths: Iterable[Path],
    runtime: str | None = None,
    where: str | None = None,
    calibration: str | None = None,
) -> Validation:
    """Validate the runs of several CSV files. calibration: a path or "none", for all of them;
    the catalog's nearest without. Raises InputError."""
    runs = [run for path in paths for run in read_runs(path)]
    return validate(
        runs, runtime, where, functools.partial(predict_replayed, calibration=calibration)
    )


def _baseline(outcomes: Sequence[Outcome], seconds: Sequence[float | None]) -> dict[str, Any]:
    pairs = [
        (guess, each.measured_seconds)
        for each, guess in zip(outcomes, seconds, strict=True)
        if guess is not None and each.measured_seconds
    ]
    return {**error_metrics(pairs), **order_metrics(outcomes, seconds)}


def _row(validation: Validation, index: int) -> dict[str, Any]:
    each = validation.outcomes[index]
    predicted = each.predicted
    return {
        "file": each.run.file,
        "line": each.run.line,
        "source": each.source,
        "model": each.model,
        "gpu": each.run.gpu,
        "n_gpus": each.devices,
        "global_batch": each.global_batch,
        "seq_len": each.seq_len,
        "layout": each.layout,
        "measured_step_seconds": each.measured_seconds,
        "predicted_step_seconds": predicted.step_seconds,
        "low_seconds": predicted.low_seconds,
        "high_seconds": predicted.high_seconds,
        "error": _error(predicted.step_seconds, each.measured_seconds),
        "measured_peak_bytes": each.measured_bytes,
        "predicted_peak_bytes": predicted.peak_bytes,
        "safe_peak_bytes": predicted.safe_peak_bytes,
        "run_out_probability": predicted.run_out_probability,
        "memory_error": _error(predicted.peak_bytes, each.measured_bytes),
        "in_band": _inside(each),
        "failed": each.failed,
        "at_risk": predicted.at_risk,
        **{f"{name}_seconds": seconds[index] for name, seconds in validation.baselines.items()},
        "notes": list(each.notes),
    }


def _error(predicted: float, measured: float | None) -> float | None:
    return predicted / measured - 1.0 if measured else None


def _inside(each: Outcome) -> bool | None:
    """Whether the measured step lies in the predicted band."""
    if not each.measured_seconds:
        return None
    return each.predicted.low_seconds <= each.measured_seconds <= each.predicted.high_seconds
