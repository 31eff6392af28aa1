"""A user's own calibration: the nearest one of the catalog, moved by a dozen of their own runs.

The most probable constants x (logs) given the runs i and the start x0, whose value is the prior's
middle (where the start has none, the catalog's number):

    minimise  sum_i -2 log t( log T_i(x) - log t_i )  +  sum_j ( (x_j - x0_j) / (k * s_j) )**2

t        Student's, of DEGREES, for some of ten runs are slow or odd; its scale gives a median
         error of q times that of the start, held out. A run says no more about a constant than
         the model can say about a run.
s_j      how far the constant varies between the catalog's calibrations
         (planner.calibration.differences)
k, q     which share of these spreads remains within one kind of cluster, and of the start's error
         within this one. Nobody knows: x is the mean over SHARES and NOISES, each weighed by how
         probable the runs are under it, all constants integrated out (`Fit.evidence`; MacKay
         1992; model averaging, Hoeting et al. 1999). Runs that the start predicts as well as it
         predicts its own keep every constant near it; runs that lie far off in a way that a
         constant explains set that constant free; a dozen runs leave several degrees about as
         probable, and taking the best of them alone would say more than they do.

Peaks are fitted by rho of planner.calibration.fitting and k = NARROW. Runs are left out one by one
for the error that a further run of this cluster will have, and for the band; degrees weigh then
what the others make of them, and constants are theirs (`Fit.evidence_without`, `values_without`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from planner.calibration import fitting
from planner.calibration.case_tables import CaseTables
from planner.calibration.differences import known_calibrations, spreads_between
from planner.calibration.fitting import (
    MEMORY,
    PRIORS,
    SCALE,
    TIME,
    Fit,
    Floats,
    Priors,
    Student,
    Values,
    constant_of,
)
from planner.calibration.holdout import band, coverage, held_out, spread
from planner.spec.calibration import (
    OF_ACCELERATOR,
    OF_RUNTIME,
    Calibration,
    Constant,
    ConstantName,
)
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import InputError
from planner.spec.runs.case import Case
from planner.spec.runtime import Runtime

NARROW = 0.6
"""Assumed, of peaks: which share of the spread between clusters remains within one kind."""

SHARES = (2.0, 1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""k: of the spread between clusters; every one as probable as the others beforehand."""

NOISES = (1.0, 1 / 2, 1 / 4)
"""q: of the start's error; a new cluster is not noisier than what has been held out so far."""

HOPELESS = 3.0
"""Assumed: a degree that makes the runs e**3 times less probable than the best ends the search in
its direction; it would weigh 5 %."""

DEGREES = 4.0
"""Fitted: held out, p90 over median of the error is 2.6 to 5.9 in the catalog's sources and 2.9 in
the middle one (docs/validation.md), as of Student's t with 4 degrees; a normal's is 2.4."""

MIDDLE = 0.7407
"""The median of the absolute value of Student's t with 4 degrees of freedom."""

REPEATS = 0.01
"""Assumed: no start is better than that; repeats in the sources differ by 1 to 5 %."""

OF_MEMORY = ("memory_low", "memory_high", "memory_quantiles")

FEWEST = 3
"""Runs below which nothing can be left out."""


@dataclass(frozen=True, slots=True)
class OwnFit:
    """A calibration, and the seconds of its runs in sample and left out one by one."""

    calibration: Calibration
    cases: tuple[Case, ...]
    in_sample_seconds: Floats
    held_out_seconds: Floats


def fit_own(cases: Sequence[Case], start: Calibration | None, date: str, where: str = "") -> OwnFit:
    """Calibrate to measured runs of one device and runtime. Raises InputError."""
    timed = [case for case in cases if case.step_seconds]
    weighed = [case for case in cases if case.peak_bytes]
    first = _one_kind(timed)
    pair = first.cluster.accelerator.name, first.runtime.name
    asked = own_time(first, start, spreads_between(known_calibrations()))
    tables = CaseTables(timed)
    tried = asked.tried(tables)
    found = asked.averaged(tried)
    fixed = _others(start, found)
    memory = fit_own_memory(weighed, scaled(asked.priors, NARROW))

    def again(some: CaseTables, begin: Values | None) -> Fit:
        kept = {id(case) for case in some.cases}
        (left,) = (i for i, case in enumerate(tables.cases) if id(case) not in kept)
        return asked.averaged(tried, left)

    held = held_out(tables, list(range(len(timed))), again, found.values, fixed)
    measured = np.array([case.step_seconds for case in timed], dtype=np.float64)
    ratios = measured / held.step_seconds
    low, high = band(ratios)
    constants = {**(start.constants if start else {}), **found.constants, **memory.constants}
    made = Calibration(
        accelerator=pair[0],
        runtime=pair[1],
        constants=constants,
        time_low=low,
        time_high=high,
        **_memory_band(weighed, tables, constants, start),
        runs=len(timed),
        memory_runs=len(weighed),
        sources=tuple(dict.fromkeys(case.run.source or case.run.file for case in timed)),
        where=where,
        groups="row",
        mixtures=any(case.model.has_experts for case in timed),
        date=date,
        median_error=float(np.median(np.abs(1 / ratios - 1))),
        coverage=coverage(ratios, list(range(len(timed)))),
    )
    return OwnFit(made, tuple(timed), tables.predict(made.values())[0], held.step_seconds)


class Degree(NamedTuple):
    """How alike clusters of one kind are: shares of the spreads and of the start's noise."""

    share: float
    noise: float


class Tried(NamedTuple):
    """A degree, and the most probable constants under it. runs: how many were fitted."""

    fit: Fit
    degree: Degree
    runs: int

    def evidence(self, without: int | None = None) -> float:
        """Of all runs, or of all but one; that of the fit leaves out what depends on the noise."""
        if without is None:
            return self.fit.evidence - self.runs * float(np.log(self.degree.noise))
        fewer = (self.runs - 1) * float(np.log(self.degree.noise))
        return self.fit.evidence_without(without) - fewer


def most_probable(tried: Sequence[Tried], without: int | None = None) -> Tried:
    """The degree under which the runs are most probable, or all but one of them."""
    return max(tried, key=lambda each: each.evidence(without))


def _hopeless(some: Sequence[Tried], of: Sequence[Tried]) -> bool:
    """Whether none of some degrees weighs anything beside the best of all."""
    return most_probable(some).evidence() < most_probable(of).evidence() - HOPELESS


@dataclass(frozen=True, slots=True)
class OwnTime:
    """How constants of time are moved by runs (top of the file).

    priors: around the start, as wide as clusters differ. loss: of a run's error.
    """

    names: tuple[ConstantName, ...]
    priors: Priors
    loss: Student

    def fit(self, tables: CaseTables) -> tuple[Fit, Degree]:
        """The mean constants, and the degree under which the runs are most probable."""
        tried = self.tried(tables)
        return self.averaged(tried), most_probable(tried).degree

    def averaged(self, tried: Sequence[Tried], without: int | None = None) -> Fit:
        """The mean of the logs of the constants, degrees weighed by how probable the runs are
        under them; of all runs, or of all but one.

        Spreads hold those under every degree, and how far the degrees lie apart.
        """
        evidence = np.array([each.evidence(without) for each in tried])
        weights = np.exp(evidence - evidence.max())
        weights /= weights.sum()
        logs = np.array([self._logs(each.fit, without) for each in tried])
        sigmas = np.array([[each.fit.sigmas[name] for name in self.names] for each in tried])
        middle = weights @ logs
        spread = np.sqrt(weights @ (sigmas**2 + (logs - middle) ** 2))
        rows = list(zip(self.names, middle.tolist(), spread.tolist(), strict=True))
        return Fit({n: constant_of(x, s) for n, x, s in rows}, {n: s for n, _, s in rows})

    def _logs(self, fit: Fit, without: int | None) -> list[float]:
        """Of a fit's constants; those without a run inside their limits."""
        values = fit.values if without is None else fit.values_without(without)
        limits = [(self.priors[name].low, self.priors[name].high) for name in self.names]
        pairs = zip(self.names, limits, strict=True)
        return [float(np.log(np.clip(values[str(name)], *each))) for name, each in pairs]

    def tried(self, tables: CaseTables) -> list[Tried]:
        """Degrees: shares, and noises, for as long as they are not out of the question."""
        found: list[Tried] = []
        for noise in NOISES:
            begin = most_probable(found).fit.values if found else None
            along = self._along_shares(tables, noise, begin)
            found += along
            if _hopeless(along, found):
                break
        return found

    def _along_shares(self, tables: CaseTables, noise: float, begin: Values | None) -> list[Tried]:
        found: list[Tried] = []
        for share in SHARES:
            degree = Degree(share, noise)
            fit = self.fit_at(degree, tables, begin)
            begin = fit.values
            found.append(Tried(fit, degree, len(tables.cases)))
            if _hopeless(found[-1:], found):
                break
        return found

    def fit_at(self, degree: Degree, tables: CaseTables, begin: Values | None = None) -> Fit:
        """The most probable constants, where so much of the spreads and the noise remains."""
        measured = np.array([case.step_seconds for case in tables.cases], dtype=np.float64)
        alike = np.ones(len(measured))

        def predict(values: Values) -> Floats:
            return tables.predict(values)[0]

        priors = scaled(self.priors, degree.share)
        loss = Student(self.loss.scale * degree.noise, self.loss.degrees)
        return fitting.solve(predict, measured, self.names, alike, begin, priors, loss)


def own_time(
    first: Case, start: Calibration | None, spreads: Mapping[ConstantName, float]
) -> OwnTime:
    """For runs like the first one. spreads: of constants between clusters."""
    floor = start is not None and "stage_floor_seconds" in start.constants
    return OwnTime(
        names=(*TIME, "loss_passes", *(("stage_floor_seconds",) if floor else ())),
        priors=own_priors(first.cluster, first.runtime, start, spreads),
        loss=own_loss(start),
    )


def own_loss(start: Calibration | None) -> Student:
    """A run may lie as far from its prediction as the start's own do, held out."""
    error = start.median_error if start else None
    return Student(SCALE if error is None else max(error, REPEATS) / MIDDLE, DEGREES)


def fit_own_memory(cases: Sequence[Case], priors: Priors) -> Fit:
    """The constants of memory, if there are peaks to fit them to."""
    if not cases:
        return Fit({}, {})
    shared = any(case.layout.tp > 1 and case.runtime.sequence_parallel for case in cases)
    names = [name for name in MEMORY if shared or name != "gathered_share"]
    return fitting.fit_memory(CaseTables(cases), None, names, priors)


def own_priors(
    cluster: ClusterSpec,
    runtime: Runtime,
    start: Calibration | None,
    spreads: Mapping[ConstantName, float],
) -> Priors:
    """Around what is known of this kind of cluster, as wide as the spreads."""
    known = _catalog_numbers(cluster, runtime) | (start.values() if start else {})
    return {
        name: replace(
            prior,
            middle=min(max(known.get(str(name), prior.middle), prior.low), prior.high),
            spread=spreads[name],
        )
        for name, prior in PRIORS.items()
    }


def scaled(priors: Priors, share: float) -> Priors:
    """The same middles, a share of the spreads."""
    return {name: replace(prior, spread=share * prior.spread) for name, prior in priors.items()}


def _catalog_numbers(cluster: ClusterSpec, runtime: Runtime) -> dict[str, float]:
    found = {str(name): getattr(cluster.accelerator, name) for name in OF_ACCELERATOR}
    found |= {str(name): getattr(runtime, name) for name in OF_RUNTIME}
    found |= {"fabric_efficiency": 1.0, "network_efficiency": 1.0}
    found["fabric_latency_seconds"] = cluster.tiers[0].latency_seconds
    found["network_latency_seconds"] = cluster.tiers[-1].latency_seconds
    return {name: value for name, value in found.items() if value}


def _one_kind(cases: Sequence[Case]) -> Case:
    """The first case of runs that share device and runtime. Raises InputError."""
    if len(cases) < FEWEST:
        raise InputError(
            f"{len(cases)} usable runs with a step time; a calibration needs {FEWEST} or more, and "
            f"about ten of different layouts to be worth it"
        )
    pairs = sorted({(case.cluster.accelerator.name, case.runtime.name) for case in cases})
    if len(pairs) > 1:
        named = ", ".join(f"{runtime} on {device}" for device, runtime in pairs)
        raise InputError(
            f"the runs are of {len(pairs)} kinds ({named}); a calibration is for one accelerator "
            f"under one runtime: choose with --where, or name the software with --runtime"
        )
    return cases[0]


def _others(start: Calibration | None, found: Fit) -> dict[str, float]:
    """What the start knows and the runs do not move."""
    known = start.values() if start else {}
    return {name: value for name, value in known.items() if name not in found.values}


def _memory_band(
    cases: Sequence[Case],
    tables: CaseTables,
    constants: dict[ConstantName, Constant],
    start: Calibration | None,
) -> dict[str, Any]:
    if len(cases) < FEWEST:
        return {} if start is None else {name: getattr(start, name) for name in OF_MEMORY}
    values = {str(name): constant.value for name, constant in constants.items()}
    peaks = CaseTables(cases, tables.graphs).predict(values)[1]
    measured = np.array([case.peak_bytes for case in cases], dtype=np.float64)
    low, high = band(measured / peaks)
    return dict(zip(OF_MEMORY, (low, high, spread(measured / peaks).quantiles), strict=True))
