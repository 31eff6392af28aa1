"""Strangers: runs that no calibration is fitted on, by what their calibrations have not seen.

For each run the ratio r = measured / predicted, the band (l, h) of log r that its calibration has
on runs like its own, and the differences D of the run from those (planner.spec.strange). With

    W = sqrt( ((h - l) / 2)**2 + sum_{d in D} s_d**2 ),    e = |log r - (l + h) / 2| - W

the s_d of least mean pinball loss max(0.8 e, -0.2 e) make W the 80th percentile (Koenker and
Bassett 1978). Runs of one source, model and device share most of their error, so every such group
weighs the same. Judged on a source that is left out of the fit.
"""

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from planner.calibration.case_tables import CaseTables, problem
from planner.calibration.predicted_runs import Calibrations
from planner.calibration.recipes import RECIPES
from planner.spec import catalog, documents
from planner.spec.calibration import Calibration
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs
from planner.spec.strange import DIFFERENCES, WIDER, Difference, widened

Floats = NDArray[np.float64]

INSIDE = 0.8
STARTS = (0.05, 0.1, 0.2, 0.3)
"""Widths that the search begins at; the loss has corners."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A run. source: its file. group: what shares its error. ratio: measured over predicted. low,
    high: the band of its calibration's own kind. differences: of the run from that."""

    source: str
    group: tuple[str, str, str]
    ratio: float
    low: float
    high: float
    differences: tuple[Difference, ...]

    def inside(self, wider: dict[Difference, float]) -> bool:
        """Whether the measured time is in the band."""
        low, high = widened(self.low, self.high, self.differences, wider)
        return low <= self.ratio <= high


def strangers() -> list[Stranger]:
    """Every run of the catalog that can be predicted and that nothing is fitted on."""
    fitted = {name for recipe in RECIPES for name in recipe.groups}
    found: list[Stranger] = []
    for path in sorted((catalog.FOLDER / "runs").glob("*.csv")):
        if path.stem not in fitted and not path.stem.endswith("oom"):
            found += _of_source(path.stem, make_cases(read_runs(path)).cases)
    return found


def _of_source(source: str, cases: Sequence[Case]) -> list[Stranger]:
    calibrations = Calibrations()
    asked = [case for case in cases if case.step_seconds and problem(case) is None]
    known = [(case, own) for case in asked if (own := calibrations.of(case)) is not None]
    values = [own.values() for _, own in known]
    seconds = CaseTables([case for case, _ in known]).predict(values)[0]
    return [
        _stranger(source, case, own, predicted)
        for (case, own), predicted in zip(known, seconds.tolist(), strict=True)
    ]


def _stranger(source: str, case: Case, used: Calibration, predicted: float) -> Stranger:
    assert case.step_seconds is not None
    own = _lender(used)
    strange: list[Difference] = []
    if own.accelerator != used.accelerator:
        strange.append("accelerator")
    if own.runtime != used.runtime:
        strange.append("runtime")
    return Stranger(
        source=source,
        group=(source, case.model.name, case.cluster.accelerator.name),
        ratio=case.step_seconds / predicted,
        low=own.time_low,
        high=own.time_high,
        differences=(*strange, *own.strange(case.model.has_experts)),
    )


def _lender(calibration: Calibration) -> Calibration:
    if not calibration.borrowed:
        return calibration
    path = catalog.FOLDER / "calibrations" / f"{calibration.borrowed_from}.json"
    return documents.load(Calibration, path)


def weights(rows: Sequence[Stranger]) -> Floats:
    """What each row weighs: every group the same, 1 in all."""
    sizes = collections.Counter(row.group for row in rows)
    return np.array([1.0 / sizes[row.group] / len(sizes) for row in rows])


def fit(rows: Sequence[Stranger]) -> dict[Difference, float]:
    """The factors that make 80 % of every kind lie inside."""
    weight = weights(rows)
    lows, highs = (np.log([getattr(row, name) for row in rows]) for name in ("low", "high"))
    away = np.abs(np.log([row.ratio for row in rows]) - (lows + highs) / 2)
    has = np.array([[d in row.differences for d in DIFFERENCES] for row in rows], dtype=np.float64)

    def loss(widths: Floats) -> float:
        over = away - np.sqrt(((highs - lows) / 2) ** 2 + has @ widths**2)
        return float(weight @ np.maximum(INSIDE * over, (INSIDE - 1) * over))

    tried = [
        optimize.minimize(loss, np.full(len(DIFFERENCES), start), method="Nelder-Mead")
        for start in STARTS
    ]
    best = min(tried, key=lambda each: float(each.fun)).x
    return {d: math.exp(abs(width)) for d, width in zip(DIFFERENCES, best, strict=True)}


def coverage(rows: Sequence[Stranger], wider: dict[Difference, float] = WIDER) -> float:
    """The share of rows inside."""
    return float(np.mean([row.inside(wider) for row in rows]))


def left_out(rows: Sequence[Stranger]) -> dict[str, float]:
    """The share of every source inside bands that the other sources set."""
    return {
        source: coverage([row for row in rows if row.source == source], fit(others))
        for source in dict.fromkeys(row.source for row in rows)
        if (others := [row for row in rows if row.source != source])
    }


def by_difference(rows: Sequence[Stranger]) -> dict[str, list[Stranger]]:
    """The rows of every kind of difference, in words."""
    found: dict[str, list[Stranger]] = collections.defaultdict(list)
    for row in rows:
        found[" and ".join(row.differences) or "nothing"].append(row)
    return dict(sorted(found.items(), key=lambda each: (each[1][0].differences, each[0])))


def eight_of_ten(rows: Sequence[Stranger]) -> float:
    """The factor around the prediction that eight of ten rows lie within, rows weighed alike."""
    return float(np.exp(np.quantile(np.abs(np.log([row.ratio for row in rows])), INSIDE)))
