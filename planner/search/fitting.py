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
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner.search.case_tables import CaseTables
from planner.spec.calibration import Constant, ConstantName
from planner.spec.run_case import Case

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
    "layer_host_seconds",
    "step_seconds",
)
MEMORY: tuple[ConstantName, ...] = ("activation_scale", "gathered_share", "context_bytes")


KNOWN = 0.7
"""Assumed: a constant is identified if the runs narrow it to that share of its prior's spread."""

NOTHING: Mapping[str, float] = {}


def time_names(cases: Sequence[Case]) -> tuple[ConstantName, ...]:
    """The constants of time: a runtime with a stage floor has that one, others the loss's."""
    floor = any(case.runtime.stage_floor_seconds for case in cases)
    return (*TIME, "stage_floor_seconds" if floor else "loss_passes")


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted constants with where they may lie. sigmas: the spread of each one's log."""

    constants: dict[ConstantName, Constant]
    sigmas: dict[ConstantName, float]

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
    priors: Priors = PRIORS,
    fixed: Mapping[str, float] = NOTHING,
) -> Fit:
    """Fit constants of time to the measured seconds of all cases. fixed: others, left alone."""
    measured = np.array([case.step_seconds for case in tables.cases], dtype=np.float64)
    names = time_names(tables.cases) if names is None else names
    predict = _Predictor(tables, fixed, 0)
    return solve(predict, measured, names, _weights(tables.cases), start, priors)


def fit_memory(
    tables: CaseTables,
    start: Mapping[str, float] | None = None,
    names: Sequence[ConstantName] | None = None,
    priors: Priors = PRIORS,
) -> Fit:
    """Fit constants of memory to the measured peaks of all cases."""
    measured = np.array([case.peak_bytes for case in tables.cases], dtype=np.float64)
    names = MEMORY if names is None else names
    predict = _Predictor(tables, NOTHING, 1)
    return solve(predict, measured, names, _weights(tables.cases), start, priors)


@dataclass(frozen=True, slots=True)
class _Predictor:
    """Seconds (what 0) or peaks (what 1) of all cases by the fitted and the fixed constants."""

    tables: CaseTables
    fixed: Mapping[str, float]
    what: int

    def __call__(self, values: Mapping[str, float]) -> Floats:
        return self.tables.predict({**self.fixed, **values})[self.what]


def solve(
    predict: Callable[[Mapping[str, float]], Floats],
    measured: Floats,
    names: Sequence[ConstantName],
    weights: Floats,
    start: Mapping[str, float] | None,
    priors: Priors,
) -> Fit:
    """Fit constants so that what `predict` says of them is what was measured (top of the file).

    weights: square roots, one per measured number. start: where to begin (default: the middles).
    """
    if not names:
        return Fit({}, {})
    known = [priors[name] for name in names]
    middle = np.log([prior.middle for prior in known])
    spread = np.array([prior.spread for prior in known])
    low, high = (np.log([getattr(p, side) for p in known]) for side in ("low", "high"))
    logs = np.log(measured)

    def residuals(x: Floats) -> Floats:
        values = {str(name): float(v) for name, v in zip(names, np.exp(x), strict=True)}
        errors = (np.log(predict(values)) - logs) / SCALE
        robust = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1))
        return np.concatenate([weights * robust, (x - middle) / spread])

    starts = {} if start is None else start
    first = np.array([np.log(starts.get(str(n), priors[n].middle)) for n in names])
    inside = np.clip(first, low + 1e-6, high - 1e-6)
    found = least_squares(
        residuals, inside, bounds=(low, high), diff_step=1e-3, xtol=1e-5, ftol=1e-5, max_nfev=40
    )
    data = found.jac[: len(logs)]
    noise = max(1.0, float(np.median(np.abs(found.fun[: len(logs)]))) / 0.6745)
    sigma = np.sqrt(np.diag(np.linalg.inv(data.T @ data / noise**2 + np.diag(1 / spread**2))))
    constants = {n: _constant(*each) for n, *each in zip(names, found.x, sigma, strict=True)}
    return Fit(constants, dict(zip(names, sigma.tolist(), strict=True)))


def _constant(x: float, sigma: float) -> Constant:
    low, value, high = (float(np.exp(x + BAND * sign * sigma)) for sign in (-1, 0, 1))
    return Constant(value=value, low=low, high=high)


def _weights(cases: Sequence[Case]) -> Floats:
    """Square roots of the runs' weights: sources count alike, the mean weight is one."""
    often = Counter(case.run.source for case in cases)
    weights = np.array([1.0 / often[case.run.source] for case in cases])
    result: Floats = np.sqrt(weights / weights.mean())
    return result
