"""A user's own calibration: read what they measured, fit, and say how good it is.

The errors of runs left out one by one stand beside those in sample and beside the two trivial
baselines, each fitted without the group it predicts (reports.validation.baselines). Of a profile,
constants fitted to one half of the grid predict the other; no calibration is the baseline.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.calibration.case_tables import problem
from planner.calibration.own_profile import check_profile, device_of, fit_profile
from planner.calibration.own_runs import OwnFit, fit_own
from planner.calibration.predicted_runs import RunPrediction
from planner.graph.counts import model_flops
from planner.spec import catalog, documents
from planner.spec.calibration import MEANINGS, Calibration, ConstantName
from planner.spec.documents import InputError
from planner.spec.profile import Profile
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs
from planner.spec.runs.where import compile_where
from planner.spec.units import format_bytes, format_seconds
from reports.validation.baselines import NAMES, baseline_seconds
from reports.validation.errors import error_metrics
from reports.validation.outcome import outcome
from reports.verdict import percent

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """A calibration made, what it began from, and its errors by how they were made."""

    calibration: Calibration
    start: Calibration | None
    errors: dict[str, Row]

    def to_json(self) -> Row:
        """The whole as one JSON value."""
        return {
            "schema": "calibrating/1",
            "calibration": self.calibration.model_dump(mode="json"),
            "start": self.start.title if self.start else None,
            "errors": self.errors,
        }


def calibrate(
    path: Path, runtime: str | None = None, where: str | None = None, start: str | None = None
) -> Report:
    """Calibrate to the runs of a CSV file, or to a profile.json. Raises InputError.

    start: a calibration of the catalog or the path of one, or "none"; the nearest without.
    """
    if path.suffix == ".json":
        if where is not None:
            raise InputError(f"--where chooses among runs; {path} is a profile")
        return _of_profile(path, runtime, start)
    cases = _cases(path, runtime, where)
    begun = _start(start, cases[0].cluster.accelerator.name, cases[0].runtime.name)
    found = fit_own(cases, begun, datetime.date.today().isoformat(), where or "")
    return Report(found.calibration, begun, _errors(found))


def _of_profile(path: Path, runtime: str | None, start: str | None) -> Report:
    profile = documents.load(Profile, path)
    of_cpu = profile.machine.kind == "cpu"
    software = catalog.find_runtime(runtime or ("native" if of_cpu else "megatron-core"))
    device = device_of(profile).name
    nearest = device if device in catalog.list_accelerators() else None
    begun = _start(start, device, software.name) if start or nearest else None
    pairs = check_profile(profile, software)
    errors = {name: _metrics(*zip(*each, strict=True)) for name, each in pairs.items()}
    return Report(fit_profile(profile, software, begun), begun, errors)


def _cases(path: Path, runtime: str | None, where: str | None) -> list[Case]:
    runs = read_runs(path)
    chosen = compile_where(where) if where else lambda _: True
    made = make_cases([run for run in runs if chosen(run)], runtime, model_flops)
    cases = [case for case in made.cases if problem(case) is None]
    if not any(case.step_seconds for case in cases):
        reasons = [*made.skipped, *(problem(case) or "no step time" for case in made.cases)]
        raise InputError(
            f"{path}: none of {len(runs)} rows can be used"
            + (f" ({'; '.join(sorted(set(reasons)))})" if reasons else "; --where selects none")
        )
    return cases


def _start(asked: str | None, accelerator: str, runtime: str) -> Calibration | None:
    if asked == "none":
        return None
    if asked is None:
        return catalog.find_calibration(catalog.find_accelerator(accelerator), runtime)
    if asked in catalog.list_calibrations():
        path = catalog.FOLDER / "calibrations" / f"{asked}.json"
    elif asked.endswith(".json"):
        path = Path(asked)
    else:
        names = ", ".join(catalog.list_calibrations())
        raise InputError(f"--start: {asked!r} is no calibration; write one of {names}, or a path")
    found = documents.load(Calibration, path)
    if (found.accelerator, found.runtime) == (accelerator, runtime):
        return found
    return found.borrowed_for(accelerator, runtime)


def _errors(found: OwnFit) -> dict[str, Row]:
    measured = [case.step_seconds or 0.0 for case in found.cases]
    plain = [
        outcome(case, RunPrediction(seconds, seconds, seconds, 0.0, False))
        for case, seconds in zip(found.cases, found.held_out_seconds.tolist(), strict=True)
    ]
    guesses: dict[str, Sequence[float | None]] = {
        "in sample": found.in_sample_seconds.tolist(),
        "left out one by one": found.held_out_seconds.tolist(),
        **{f"baseline: {name}": baseline_seconds(plain, name) for name in NAMES},
    }
    return {name: _metrics(seconds, measured) for name, seconds in guesses.items()}


def _metrics(guesses: Sequence[float | None], measured: Sequence[float]) -> Row:
    pairs = [(g, m) for g, m in zip(guesses, measured, strict=True) if g is not None]
    return {"runs": len(pairs), **error_metrics(pairs)}


def constant_rows(report: Report) -> list[Row]:
    """The constants with where they may lie, beside the start's."""
    before = report.start.values() if report.start else {}
    return [
        {
            "constant": name,
            "value": _number(name, constant.value),
            "from": _number(name, constant.low),
            "to": _number(name, constant.high),
            "start": _number(name, before[name]) if name in before else "",
            "meaning": MEANINGS[name][1],
        }
        for name, constant in report.calibration.constants.items()
    ]


def error_rows(report: Report) -> list[Row]:
    """The errors of the step time, or of a profile's samples."""
    what = "step time" if report.calibration.runs else "seconds of"
    return [
        {
            what: name,
            "runs": row["runs"],
            "median |error|": _share(row["median_ape"]),
            "mean": _share(row["mean_ape"]),
            "p90": _share(row["p90_ape"]),
            "bias": _share(row["bias"], sign=True),
        }
        for name, row in report.errors.items()
    ]


def headline(report: Report) -> str:
    """What was calibrated, from what."""
    made = report.calibration
    begun = report.start.title if report.start else "the catalog's numbers"
    what = f"{made.runs} runs" if made.runs else made.sources[0]
    band = f"{percent(made.time_low - 1, True)} to {percent(made.time_high - 1, True)}"
    return f"{made.name} from {what}, starting from {begun}; eight of ten steps within {band}"


def _number(name: ConstantName, value: float) -> str:
    unit = MEANINGS[name][0]
    if unit == "s":
        return format_seconds(value)
    if unit == "B" and value > 1e4:
        return format_bytes(value)
    return f"{np.round(value, 3):g}"


def _share(value: float | None, sign: bool = False) -> str:
    return "–" if value is None else percent(value, sign)
