"""Predictions of measured runs: what validation puts beside the measured numbers.

Every run is predicted with the calibration of its accelerator and runtime (the catalog's nearest,
or one that the caller names for all), and carries that calibration's band.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.calibration.case_tables import CaseTables, problem
from planner.calibration.chosen import chosen_calibration
from planner.spec.calibration import UNWEIGHED, Calibration, uncalibrated_band
from planner.spec.documents import InputError
from planner.spec.plan import AT_RISK
from planner.spec.runs.case import Case
from planner.spec.spread import SAFE


@dataclass(frozen=True, slots=True)
class RunPrediction:
    """What is predicted for one run. low_seconds, high_seconds: 10th and 90th percentile.

    at_risk: it may not fit. safe_peak_bytes, run_out_probability: as of a plan's Prediction.
    notes: what the prediction rests on or leaves out.
    """

    step_seconds: float
    low_seconds: float
    high_seconds: float
    peak_bytes: float
    at_risk: bool
    notes: tuple[str, ...] = ()
    safe_peak_bytes: float | None = None
    run_out_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a run is not predicted, in words that many runs share."""

    reason: str


class Calibrations:
    """The calibration of every (accelerator, runtime), looked up once; `asked` as for `ask`."""

    def __init__(self, asked: str | Calibration | None = None):
        self.asked = asked
        self.known: dict[tuple[str, str], Calibration | None] = {}

    def of(self, case: Case) -> Calibration | None:
        """The one that a case is predicted with."""
        pair = case.cluster.accelerator.name, case.runtime.name
        if pair not in self.known:
            self.known[pair] = chosen_calibration(self.asked, case.cluster, case.runtime)
        return self.known[pair]


def predict_runs(
    cases: Iterable[Case], calibration: str | Calibration | None = None
) -> list[RunPrediction | Refused]:
    """A prediction, or the reason why there is none, for every case in its order."""
    cases = list(cases)
    found: dict[int, RunPrediction | Refused] = {}
    asked: list[int] = []
    for index, case in enumerate(cases):
        reason = problem(case)
        if reason is None:
            asked.append(index)
        else:
            found[index] = Refused(reason)
    calibrations = Calibrations(calibration)
    found |= _predicted({index: cases[index] for index in asked}, calibrations)
    return [found[index] for index in range(len(cases))]


def _predicted(
    cases: Mapping[int, Case], calibrations: Calibrations
) -> dict[int, RunPrediction | Refused]:
    """All cases at once; one by one where something refuses them."""
    used = [calibrations.of(case) for case in cases.values()]
    values = [each.values() if each else {} for each in used]
    try:
        seconds, peaks = CaseTables(list(cases.values())).predict(values)
    except InputError as error:
        if len(cases) == 1:
            return dict.fromkeys(cases, Refused(str(error)))
        single = (_predicted({index: case}, calibrations) for index, case in cases.items())
        return {index: each for one in single for index, each in one.items()}
    rows = zip(cases.items(), used, seconds.tolist(), peaks.tolist(), strict=True)
    return {index: _prediction(case, *rest) for (index, case), *rest in rows}


def _prediction(
    case: Case, calibration: Calibration | None, seconds: float, peak: float
) -> RunPrediction:
    experts = case.model.has_experts
    low, high = calibration.time_band(experts) if calibration else uncalibrated_band(experts)
    around = calibration.memory_spread if calibration else UNWEIGHED
    return RunPrediction(
        step_seconds=seconds,
        low_seconds=seconds * low,
        high_seconds=seconds * high,
        peak_bytes=peak,
        at_risk=peak > AT_RISK * case.cluster.memory_bytes,
        notes=(f"calibration {calibration.title if calibration else 'none'}",),
        safe_peak_bytes=peak * around.quantile(SAFE),
        run_out_probability=around.share_above(case.cluster.memory_bytes / peak),
    )
