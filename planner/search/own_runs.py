"""A user's own calibration: the nearest one of the catalog, moved by a dozen of their own runs.

The fit is that of planner.search.fitting with other priors: the middle of every constant is the
starting calibration's value (where it has none, the catalog's number), its spread NARROW of the
general one, because a cluster of the same kind differs less than any cluster may. Runs are left
out one by one for the error that a further run of this cluster will have, and for the band.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.search import fitting
from planner.search.case_tables import CaseTables
from planner.search.fitting import MEMORY, PRIORS, TIME, Fit, Floats, Priors, Values
from planner.search.holdout import band, coverage, held_out, spread
from planner.spec.calibration import (
    OF_ACCELERATOR,
    OF_RUNTIME,
    Calibration,
    Constant,
    ConstantName,
)
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import InputError
from planner.spec.run_case import Case
from planner.spec.runtime import Runtime

NARROW = 0.6
"""Assumed: of a general prior's spread, what is left once the kind of cluster is known."""

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
    priors = own_priors(first.cluster, first.runtime, start)
    tables = CaseTables(timed)
    found = fit_own_time(tables, start, priors)
    fixed = _others(start, found)
    memory = fit_own_memory(weighed, start, priors)

    def again(some: CaseTables, begin: Values | None) -> Fit:
        return fit_own_time(some, start, priors, begin)

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
        date=date,
        median_error=float(np.median(np.abs(1 / ratios - 1))),
        coverage=coverage(ratios, list(range(len(timed)))),
    )
    return OwnFit(made, tuple(timed), tables.predict(made.values())[0], held.step_seconds)


def fit_own_time(
    tables: CaseTables, start: Calibration | None, priors: Priors, begin: Values | None = None
) -> Fit:
    """The constants of time, from the start's values on."""
    names = [*TIME, "loss_passes"]
    names += ["stage_floor_seconds"] if start and "stage_floor_seconds" in start.constants else []
    return fitting.fit_time(tables, begin, names, priors)


def fit_own_memory(cases: Sequence[Case], start: Calibration | None, priors: Priors) -> Fit:
    """The constants of memory, if there are peaks to fit them to."""
    if not cases:
        return Fit({}, {})
    shared = any(case.layout.tp > 1 and case.runtime.sequence_parallel for case in cases)
    names = [name for name in MEMORY if shared or name != "gathered_share"]
    return fitting.fit_memory(CaseTables(cases), None, names, priors)


def own_priors(cluster: ClusterSpec, runtime: Runtime, start: Calibration | None) -> Priors:
    """The general priors, narrower and around what is known of this kind of cluster."""
    known = _catalog_numbers(cluster, runtime) | (start.values() if start else {})
    return {
        name: replace(
            prior,
            middle=min(max(known.get(str(name), prior.middle), prior.low), prior.high),
            spread=prior.spread * NARROW,
        )
        for name, prior in PRIORS.items()
    }


def _catalog_numbers(cluster: ClusterSpec, runtime: Runtime) -> dict[str, float]:
    found = {str(name): getattr(cluster.accelerator, name) for name in OF_ACCELERATOR}
    found |= {str(name): getattr(runtime, name) for name in OF_RUNTIME}
    found |= {"fabric_efficiency": 1.0, "network_efficiency": 1.0}
    found["fabric_latency_seconds"] = cluster.tiers[0].latency_seconds
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
