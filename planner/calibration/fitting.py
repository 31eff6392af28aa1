"""Fitting: the constants of a calibration from measured runs, by robust least squares.

With x = log of the constants, T_i(x) the predicted and t_i the measured seconds of run i, minimise

    sum_i w_i * rho( (log T_i(x) - log t_i) / SCALE )  +  sum_j ( (x_j - x0_j) / s_j )**2

rho(z) = 2 * (sqrt(1 + z*z) - 1), the smooth absolute value, so that a run in a state nobody
recorded pulls with a constant force. w_i = 1 / runs of the same source where several are fitted
together, times the mean: sources count alike. The second sum holds the knowledge that there is
before any run (PRIORS): it decides what the runs do not. Peak memory is fitted the same way, by its
own constants. Bounds are physical limits. low, high of a constant: x_j -/+ 1.28 sigma_j with

    sigma**2 = diag( (J'J / noise**2 + diag(1/s_j**2))**-1 )

J of the runs alone and noise the spread of their residuals. Where sigma_j is nearly s_j the runs
said nothing: `identified` drops the constant, and the catalog's number stays.

A constant of a floor (max) has no gradient while nothing lies on the floor: descent alone leaves it
where it began. So a fit that begins at the priors looks across: after the descent every constant
of which the runs say nothing there (|J_j| s_j < SILENT) is tried in turn at x_j + k * s_j, k in
ACROSS, the best is kept, and the descent goes on from there.

A likelihood other than rho may be asked (`Student`). evidence of a fit: the log of its marginal
likelihood, less what does not depend on the priors, by Laplace's approximation (MacKay 1992):

    -1/2 * [ the minimum + sum_j log s_j**2 + log det( J'J + diag(1/s_j**2) ) ]

Without run i it is that of the others (`evidence_without`), whose minimum (`values_without`) one
step of Gauss and Newton finds from the minimum of all: nothing is predicted again.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from planner.calibration.case_tables import CaseTables
from planner.spec.calibration import Constant, ConstantName
from planner.spec.runs.case import Case

Floats = NDArray[np.float64]
Values = Mapping[str, float]

SCALE = 0.05
"""Assumed: the noise of one run; repeats in the sources differ by 1 to 5 %."""

BAND = 1.2816
"""Standard deviations from the middle to the 10th and the 90th percentile of a normal."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a constant before any run: middle, limits, and the spread of its log."""

    middle: float
    low: float
    high: float
    spread: float


Priors = Mapping[ConstantName, Prior]

PRIORS: Priors = {
    "matmul_efficiency": Prior(0.75, 0.2, 1.0, 0.3),
    "attention_efficiency": Prior(0.45, 0.05, 1.0, 0.4),
    "memory_efficiency": Prior(0.7, 0.2, 1.0, 0.4),
    "matmul_depth": Prior(64.0, 1.0, 2048.0, 1.0),
    "launch_seconds": Prior(5e-6, 5e-7, 1e-4, 0.7),
    "fabric_efficiency": Prior(0.9, 0.1, 1.3, 0.5),
    "fabric_latency_seconds": Prior(5e-6, 1e-6, 5e-5, 0.7),
    "network_efficiency": Prior(0.8, 0.05, 1.2, 0.5),
    "network_latency_seconds": Prior(1e-5, 1e-6, 1e-3, 0.7),
    "layer_host_seconds": Prior(1.5e-3, 1e-5, 2e-2, 1.5),
    "step_seconds": Prior(5e-2, 1e-4, 10.0, 1.5),
    "loss_passes": Prior(6.0, 2.0, 40.0, 0.7),
    "overlap_slowdown": Prior(0.1, 1e-3, 1.0, 1.0),
    "stage_floor_seconds": Prior(1e-3, 1e-6, 1e-2, 1.5),
    "activation_scale": Prior(1.0, 0.5, 2.0, 0.3),
    "gathered_share": Prior(0.3, 0.01, 1.0, 1.0),
    "logit_bytes": Prior(12.0, 4.0, 40.0, 0.5),
    "context_bytes": Prior(1.5 * 2**30, 2**20, 12 * 2**30, 1.0),
}
"""Middles: the catalog's assumptions and the ranges that benchmarks of the devices publish."""

TIME: tuple[ConstantName, ...] = (
    "matmul_efficiency",
    "attention_efficiency",
    "memory_efficiency",
    "fabric_efficiency",
    "fabric_latency_seconds",
    "network_efficiency",
    "network_latency_seconds",
    "layer_host_seconds",
    "step_seconds",
)
MEMORY: tuple[ConstantName, ...] = ("activation_scale", "gathered_share", "context_bytes")


KNOWN = 0.7
"""Assumed: a constant is identified if the runs narrow it to that share of its prior's spread."""

ACROSS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
"""Assumed: where to look for a constant, in spreads of its prior."""

SILENT = 0.5
"""Assumed: there the runs narrow a constant by a tenth; 1 / sqrt(1 + SILENT**2) of its spread."""

WORTH = 1e-3
"""Assumed: a point across must be better by that share, or the descent was at its end."""

Loss = Callable[[Floats], Floats]
"""Signed square roots of -2 log likelihood of errors in log seconds."""


def smooth_absolute(errors: Floats) -> Floats:
    """rho of the top of the file."""
    z = errors / SCALE
    result: Floats = np.sign(z) * np.sqrt(2 * (np.sqrt(1 + z**2) - 1))
    return result


@dataclass(frozen=True, slots=True)
class Student:
    """Student's t: -2 log likelihood = (degrees + 1) * log(1 + (error / scale)**2 / degrees).

    Unlike rho it lets go of a run that is far off: the force on it falls with its distance.
    """

    scale: float
    degrees: float

    def __call__(self, errors: Floats) -> Floats:
        """Signed square roots."""
        z = errors / self.scale
        many = self.degrees
        result: Floats = np.sign(z) * np.sqrt((many + 1) * np.log1p(z**2 / many))
        return result


def time_names(cases: Sequence[Case]) -> tuple[ConstantName, ...]:
    """The constants of time: a runtime with a stage floor has that one, others the loss's."""
    floor = any(case.runtime.stage_floor_seconds for case in cases)
    return (*TIME, "stage_floor_seconds" if floor else "loss_passes")


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted constants with where they may lie. sigmas: the spread of each one's log.

    evidence: how well the priors with the runs explain the runs (top of the file). scale: of the
    priors, the sum of the logs of their spreads; terms, slopes: signed roots of what is minimised,
    first those of the runs, and their derivatives at the minimum.
    """

    constants: dict[ConstantName, Constant]
    sigmas: dict[ConstantName, float]
    evidence: float = 0.0
    scale: float = 0.0
    terms: Floats = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)
    slopes: Floats = field(default_factory=lambda: np.zeros((0, 0)), compare=False, repr=False)

    def evidence_without(self, run: int) -> float:
        """The same of the other runs, linearised where all of them have their minimum."""
        terms, slopes, step = self._without(run)
        left = terms + slopes @ step
        return _evidence(0.5 * float(left @ left), self.scale, slopes)

    def values_without(self, run: int) -> dict[str, float]:
        """The constants of the other runs, linearised there."""
        step = self._without(run)[2].tolist()
        values = self.values
        return {name: values[name] * float(np.exp(d)) for name, d in zip(values, step, strict=True)}

    def _without(self, run: int) -> tuple[Floats, Floats, Floats]:
        """Terms and slopes of the others, and the step to their minimum."""
        terms, slopes = (np.delete(each, run, axis=0) for each in (self.terms, self.slopes))
        step = np.asarray(np.linalg.lstsq(slopes, -terms, rcond=None)[0], dtype=np.float64)
        return terms, slopes, step

    @property
    def values(self) -> dict[str, float]:
        """The numbers alone."""
        return {str(name): constant.value for name, constant in self.constants.items()}

    def identified(self, priors: Priors = PRIORS) -> tuple[ConstantName, ...]:
        """The constants that the runs know better than the priors do."""
        return tuple(n for n, sigma in self.sigmas.items() if sigma < KNOWN * priors[n].spread)


def fit_time(
    tables: CaseTables,
    start: Mapping[str, float] | None = None,
    names: Sequence[ConstantName] | None = None,
) -> Fit:
    """Fit constants of time to the measured seconds of all cases."""
    measured = np.array([case.step_seconds for case in tables.cases], dtype=np.float64)
    names = time_names(tables.cases) if names is None else names
    return solve(_Predictor(tables, 0), measured, names, _weights(tables.cases), start, PRIORS)


def fit_memory(
    tables: CaseTables,
    start: Mapping[str, float] | None = None,
    names: Sequence[ConstantName] | None = None,
    priors: Priors = PRIORS,
) -> Fit:
    """Fit constants of memory to the measured peaks of all cases."""
    measured = np.array([case.peak_bytes for case in tables.cases], dtype=np.float64)
    names = MEMORY if names is None else names
    return solve(_Predictor(tables, 1), measured, names, _weights(tables.cases), start, priors)


@dataclass(frozen=True, slots=True)
class _Predictor:
    """Seconds (what 0) or peaks (what 1) of all cases by the fitted constants."""

    tables: CaseTables
    what: int

    def __call__(self, values: Mapping[str, float]) -> Floats:
        return self.tables.predict(values)[self.what]


def solve(
    predict: Callable[[Mapping[str, float]], Floats],
    measured: Floats,
    names: Sequence[ConstantName],
    weights: Floats,
    start: Mapping[str, float] | None,
    priors: Priors,
    loss: Loss = smooth_absolute,
) -> Fit:
    """Fit constants so that what `predict` says of them is what was measured (top of the file).

    weights: square roots, one per measured number. start: where to begin, already near; without,
    the fit begins at the priors' middles and looks across.
    """
    if not names:
        return Fit({}, {})
    asked = _Objective(predict, np.log(measured), tuple(names), weights, priors, loss)
    found = asked.descend(asked.begin(start or {}))
    if start is None:
        found = asked.look_across(found)
    count, spread = len(measured), asked.spread
    data = found.jac[:count]
    noise = max(1.0, float(np.median(np.abs(found.fun[:count]))) / 0.6745)
    sigma = np.sqrt(np.diag(np.linalg.inv(data.T @ data / noise**2 + np.diag(1 / spread**2))))
    constants = {n: constant_of(*each) for n, *each in zip(names, found.x, sigma, strict=True)}
    scale = float(np.log(spread).sum())
    evidence = _evidence(float(found.cost), scale, found.jac)
    sigmas = dict(zip(names, sigma.tolist(), strict=True))
    return Fit(constants, sigmas, evidence, scale, found.fun, found.jac)


def _evidence(cost: float, scale: float, slopes: Floats) -> float:
    curved = np.linalg.slogdet(slopes.T @ slopes)[1]
    return -cost - scale - 0.5 * float(curved)


@dataclass(frozen=True)
class _Objective:
    """What is minimised, over the logs of the named constants."""

    predict: Callable[[Mapping[str, float]], Floats]
    logs: Floats
    names: tuple[ConstantName, ...]
    weights: Floats
    priors: Priors
    loss: Loss

    @functools.cached_property
    def middle(self) -> Floats:
        return np.log([self.priors[name].middle for name in self.names])

    @functools.cached_property
    def spread(self) -> Floats:
        return np.array([self.priors[name].spread for name in self.names])

    @functools.cached_property
    def bounds(self) -> tuple[Floats, Floats]:
        known = [self.priors[name] for name in self.names]
        return np.log([each.low for each in known]), np.log([each.high for each in known])

    def begin(self, start: Mapping[str, float]) -> Floats:
        """Where a descent from some values begins."""
        values = [start.get(str(n), self.priors[n].middle) for n in self.names]
        return self._inside(np.log(values))

    def residuals(self, x: Floats) -> Floats:
        """Signed roots of all terms: those of the runs, then those of the priors."""
        values = {str(name): float(v) for name, v in zip(self.names, np.exp(x), strict=True)}
        runs = self.loss(np.log(self.predict(values)) - self.logs)
        return np.concatenate([self.weights * runs, (x - self.middle) / self.spread])

    def descend(self, begin: Floats) -> OptimizeResult:
        """The minimum that least squares reach from there."""
        limits: dict[str, Any] = {"xtol": 1e-5, "ftol": 1e-5, "max_nfev": 40, "diff_step": 1e-3}
        return least_squares(self.residuals, begin, bounds=self.bounds, **limits)

    def look_across(self, found: OptimizeResult) -> OptimizeResult:
        """The minimum reached from the best point across, if it is lower."""
        best, cost = found.x, float(found.cost)
        slopes = np.linalg.norm(found.jac[: len(self.logs)], axis=0) * self.spread
        for place in np.flatnonzero(slopes < SILENT).tolist():
            for x in self._moved(best, place):
                tried = 0.5 * float((self.residuals(x) ** 2).sum())
                if tried < cost:
                    best, cost = x, tried
        if cost > (1 - WORTH) * found.cost:
            return found
        return self.descend(self._inside(best))

    def _moved(self, x: Floats, place: int) -> list[Floats]:
        steps = self.spread[place] * np.array(ACROSS)
        return [self._inside(x + step * (np.arange(len(x)) == place)) for step in steps]

    def _inside(self, x: Floats) -> Floats:
        low, high = self.bounds
        result: Floats = np.clip(x, low + 1e-6, high - 1e-6)
        return result


def constant_of(x: float, sigma: float) -> Constant:
    """A constant whose log is x, with a spread of sigma."""
    low, value, high = (float(np.exp(x + BAND * sign * sigma)) for sign in (-1, 0, 1))
    return Constant(value=value, low=low, high=high)


def _weights(cases: Sequence[Case]) -> Floats:
    """Square roots of the runs' weights: sources count alike, the mean weight is one."""
    often = Counter(case.run.source for case in cases)
    weights = np.array([1.0 / often[case.run.source] for case in cases])
    result: Floats = np.sqrt(weights / weights.mean())
    return result
