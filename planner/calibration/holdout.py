"""Held out: predictions of runs by constants that were fitted without them, and their band.

Runs are left out by whole groups, because runs of one group share what a random row would betray.
The band of a prediction p is [low * p, high * p], low and high the quantiles q = TAIL and 1 - TAIL
of the held-out ratios r = measured / predicted, as order statistics at q * (n + 1): the expected
share of a further ratio outside is then exactly 2 * q (Guttman 1970). Below FEW ratios these
places lie outside the sample, and the band is

    exp( mean(log r) -/+ t * s * sqrt(1 + 1/n) )      t: Student's quantile of n - 1 degrees

The spread of peak memory has more quantiles (planner.spec.spread), as order statistics too; those
whose place lies outside the sample are a log-normal's of the same mean and spread, if further out
than the last ratio.

coverage is honest only if a group's own ratios do not set its band: every group is judged by the
quantiles of the others.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from planner.calibration.case_tables import CaseTables
from planner.calibration.fitting import Fit
from planner.spec.spread import LEVELS, NORMAL, Spread

Floats = NDArray[np.float64]
Values = Mapping[str, float]
Fitter = Callable[[CaseTables, Values | None], Fit]

TAIL = 0.10
FEW = 9
"""Order statistics at TAIL need that many ratios."""

NO_BAND = (0.8, 1.25)
"""Assumed: where nothing was held out."""


@dataclass(frozen=True, slots=True)
class Held:
    """Seconds and peak bytes of every case, by constants fitted without its group."""

    step_seconds: Floats
    peak_bytes: Floats


def held_out(
    tables: CaseTables,
    groups: Sequence[Hashable],
    fit: Fitter,
    start: Values | None = None,
    keep: Values | None = None,
) -> Held:
    """Predict every group by a fit to the others. keep: constants that are not fitted here."""
    seconds, peaks = np.zeros(len(groups)), np.zeros(len(groups))
    for group in dict.fromkeys(groups):
        rows = [index for index, each in enumerate(groups) if each == group]
        found = fit(tables.without(rows), start)
        predicted = tables.only(rows).predict({**(keep or {}), **found.values})
        seconds[rows], peaks[rows] = predicted
    return Held(seconds, peaks)


def band(ratios: Floats) -> tuple[float, float]:
    """The 10th and the 90th percentile of a further ratio of measured over predicted."""
    if len(ratios) < 2:
        return NO_BAND
    if len(ratios) >= FEW:
        low, high = np.quantile(ratios, (TAIL, 1 - TAIL), method="weibull")
        return float(low), float(high)
    logs = np.log(ratios)
    reach = stats.t.ppf(1 - TAIL, len(logs) - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs))
    return float(np.exp(logs.mean() - reach)), float(np.exp(logs.mean() + reach))


def spread(ratios: Floats) -> Spread:
    """The quantiles of a further ratio of measured over predicted. Two ratios at least."""
    logs, n = np.sort(np.log(ratios)), len(ratios)
    places = np.array([NORMAL.inv_cdf(level) for level in LEVELS])
    normal = logs.mean() + places * logs.std(ddof=1) * np.sqrt(1 + 1 / n)
    order = np.log(np.quantile(ratios, LEVELS, method="weibull"))
    below, above = np.array(LEVELS) * (n + 1) < 1, np.array(LEVELS) * (n + 1) > n
    order = np.where(below, np.minimum(order, normal), order)
    order = np.where(above, np.maximum(order, normal), order)
    return Spread(tuple(np.exp(np.maximum.accumulate(order)).tolist()))


def coverage(ratios: Floats, groups: Sequence[Hashable]) -> float:
    """The share of ratios inside the band that the other groups' ratios set."""
    owner = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    owners = np.array([owner[group] for group in groups])
    inside = np.zeros(len(ratios), dtype=bool)
    for place in owner.values():
        own = owners == place
        low, high = band(ratios[~own])
        inside[own] = (low <= ratios[own]) & (ratios[own] <= high)
    return float(inside.mean())
