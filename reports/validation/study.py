"""The study: cross-validation of the cost model, written as docs/validation.md.

    make validation        (python -m reports.validation.study [FOLDER])
    make validation ONLY="elsewhere NeMo"        (... FOLDER elsewhere NeMo)

The second makes only the section of the runs elsewhere, the table of peaks (`memory`) and the rows
whose titles hold a word (`reports.validation.renewed`), and leaves the figures as they are.

Every time in the tables is that of constants fitted without the rows judged, whole groups left
out; the band of a group comes from the ratios of the others. What is at risk comes from the
catalog's memory constants. The baselines are left-one-group-out too (model and devices).
"""

import datetime
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from planner.calibration import fitting
from planner.calibration.case_tables import CaseTables, problem
from planner.calibration.differences import known_calibrations, spreads_between
from planner.calibration.fitting import Fit, Floats, Values
from planner.calibration.holdout import band, coverage, held_out, spread
from planner.calibration.own_runs import own_time
from planner.calibration.predicted_runs import RunPrediction
from planner.calibration.recipes import RECIPES, fit_peaks
from planner.calibration.strangers import strangers
from planner.spec import catalog
from planner.spec.calibration import Calibration, Constant
from planner.spec.documents import InputError, write_text
from planner.spec.plan import AT_RISK
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import Run, read_runs
from planner.spec.runs.where import compile_where
from planner.spec.spread import SAFE, Spread
from reports.figures.validation import plot_validation, write_figure
from reports.validation.document import APART, CALIBRATIONS, document
from reports.validation.elsewhere import elsewhere
from reports.validation.errors import error_metrics, memory_metrics
from reports.validation.feasibility import feasibility_metrics
from reports.validation.judged import Judged
from reports.validation.outcome import Outcome, outcome
from reports.validation.renewed import renewed
from reports.validation.splits import SPLITS, TRANSFERS, Split, Transfer
from reports.validation.validation import Validation

Row = dict[str, Any]

MEMORY = {
    "Ultra-Scale; group": (
        "hf_ultrascale",
        "hf_ultrascale_crashed_or_oom",
        ("model", "n_gpus"),
    ),
    "BLOOM; layout": ("bigscience_bloom_prequel", "", ("tp", "pp", "dp")),
}
"""Peaks of a file, failures of another, and what is left out together."""

RUNS_OF_A_NEW_CLUSTER = 10
DRAWS = 5
"""How often ten runs are drawn; the median over the draws is reported."""


def cases_of(files: Sequence[str]) -> list[Case]:
    """Every run of the catalog's files that can be predicted."""
    runs = [run for name in files for run in read_runs(catalog.FOLDER / "runs" / f"{name}.csv")]
    return [case for case in make_cases(runs).cases if problem(case) is None]


def selected(cases: Sequence[Case], where: str) -> list[Case]:
    """The cases of runs that an expression chooses."""
    chosen: Callable[[Run], bool] = compile_where(where) if where else lambda _: True
    return [case for case in cases if chosen(case.run)]


def judge(split: Split) -> Judged:
    """Leave out group after group."""
    begun = time.perf_counter()
    cases = [case for case in cases_of(split.files) if case.step_seconds]
    judged, fitted = selected(cases, split.judged), selected(cases, split.fitted)
    own = {id(case) for case in fitted}
    union = [*fitted, *(case for case in judged if id(case) not in own)]
    groups = [_group(split, case) for case in union]
    tables, training = CaseTables(union), CaseTables(fitted)
    start = fitting.fit_time(training).values
    seconds = np.zeros(len(union))
    for group in dict.fromkeys(groups):
        inside = [i for i, each in enumerate(groups) if each == group]
        left = {i for i in inside if i < len(fitted)}
        found = fitting.fit_time(training.without(left), start).values
        seconds[inside] = tables.only(inside).predict(found)[0]
    place = {id(case): index for index, case in enumerate(union)}
    rows = [place[id(case)] for case in judged]
    outcomes = _outcomes(judged, seconds[rows], [groups[i] for i in rows])
    taken = time.perf_counter() - begun
    return Judged(split, outcomes, len(set(groups)), taken)


def _group(split: Split, case: Case) -> tuple[object, ...]:
    return (case.run.file, *(getattr(case.run, column) for column in split.by))


def _outcomes(
    cases: Sequence[Case], seconds: Floats, groups: Sequence[tuple[object, ...]]
) -> tuple[Outcome, ...]:
    """Predictions with the band that the other groups set and the peak of the catalog."""
    ratios = np.array([case.step_seconds for case in cases], dtype=np.float64) / seconds
    bands = {
        group: band(ratios[[other != group for other in groups]]) for group in dict.fromkeys(groups)
    }
    peaks = CaseTables(cases).predict(_memory_values(cases[0]))[1]
    found = []
    for case, each, peak, group in zip(
        cases, seconds.tolist(), peaks.tolist(), groups, strict=True
    ):
        low, high = bands[group]
        risk = peak > AT_RISK * case.cluster.memory_bytes
        predicted = RunPrediction(each, each * low, each * high, peak, risk)
        found.append(outcome(case, predicted))
    return tuple(found)


def _memory_values(case: Case) -> dict[str, float]:
    found = catalog.find_calibration(case.cluster.accelerator, case.runtime.name)
    values = found.values() if found else {}
    return {name: value for name, value in values.items() if name in fitting.MEMORY}


def judge_memory(file: str, failures: str, by: tuple[str, ...]) -> tuple[Row, tuple[Outcome, ...]]:
    """Held-out peaks of a file; failures of another, predicted by all peaks."""
    cases = [case for case in cases_of((file,)) if case.peak_bytes]
    groups = [tuple(getattr(case.run, column) for column in by) for case in cases]
    tables = CaseTables(cases)
    recipe = next(recipe for recipe in RECIPES if file in recipe.groups)

    def fit(some: CaseTables, start: Values | None) -> Fit:
        return fit_peaks(recipe, some, start)

    full = fit(tables, None).values
    held = held_out(tables, groups, fit, full).peak_bytes
    failed = cases_of((failures,)) if failures else []
    both = [*cases, *failed]
    peaks = np.concatenate([held, CaseTables(failed).predict(full)[1]]) if failed else held
    measured = np.array([case.peak_bytes for case in cases], dtype=np.float64)
    around = _spreads(measured / held, groups, len(both))
    outcomes = tuple(
        outcome(case, _weighed(case, peak, each))
        for case, peak, each in zip(both, peaks.tolist(), around, strict=True)
    )
    pairs = list(zip(held.tolist(), measured.tolist(), strict=True))
    row = {
        **error_metrics(pairs),
        "runs": len(cases),
        "coverage": coverage(measured / held, groups),
        "safe_below": memory_metrics(outcomes)["share_unsafe"],
        **feasibility_metrics(outcomes),
    }
    return row, outcomes


def _spreads(ratios: Floats, groups: Sequence[object], count: int) -> list[Spread]:
    """For every case the spread of the other groups' ratios, for failures that of all."""
    others = {
        group: spread(ratios[[each != group for each in groups]]) for group in dict.fromkeys(groups)
    }
    return [*(others[group] for group in groups), *[spread(ratios)] * (count - len(groups))]


def _weighed(case: Case, peak: float, around: Spread) -> RunPrediction:
    memory = case.cluster.memory_bytes
    return RunPrediction(
        1.0,
        1.0,
        1.0,
        peak,
        peak > AT_RISK * memory,
        safe_peak_bytes=peak * around.quantile(SAFE),
        run_out_probability=around.share_above(memory / peak),
    )


def transfer(asked: Transfer) -> Row:
    """Ten runs of a new cluster: the error on its others, over several draws."""
    cases = [case for case in cases_of(asked.files) if case.step_seconds]
    known, new = selected(cases, asked.known), selected(cases, asked.new)
    tables = CaseTables(new)
    measured = np.array([case.step_seconds for case in new], dtype=np.float64)
    start = _as_calibration(known, asked.by)
    judged = {(c.cluster.accelerator.name, c.runtime.name) for c in cases}
    ten = own_time(new[0], start, spreads_between(known_calibrations(without=judged)))
    own = fitting.fit_time(tables)
    few = min(RUNS_OF_A_NEW_CLUSTER, len(new) - 3)
    rest = []
    for draw in range(DRAWS):
        chosen = set(random.Random(draw).sample(range(len(new)), few))
        found = ten.fit(tables.only(sorted(chosen)))[0]
        others = [i for i in range(len(new)) if i not in chosen]
        rest.append(_median(tables.predict(found.values)[0][others], measured[others]))
    in_sample = _median(tables.predict(own.values)[0], measured)
    return {
        "new cluster": asked.title,
        "runs": len(new),
        "before": _median(tables.predict(start.values())[0], measured),
        "after": statistics.median(rest),
        "worst": max(rest),
        "in_sample": in_sample,
        "ratio": statistics.median(rest) / in_sample,
        "why": f": {asked.why}" if asked.why else "",
    }


def _as_calibration(cases: Sequence[Case], by: Sequence[str]) -> Calibration:
    """All constants of time, fitted to the cases, and the median error of groups left out."""
    tables = CaseTables(cases)
    found = fitting.fit_time(tables)
    groups = [tuple(getattr(case.run, column) for column in by) for case in cases]
    held = held_out(tables, groups, fitting.fit_time, found.values).step_seconds
    measured = np.array([case.step_seconds for case in cases], dtype=np.float64)
    constants: dict[Any, Constant] = dict(found.constants)
    return Calibration(
        accelerator=cases[0].cluster.accelerator.name,
        runtime=cases[0].runtime.name,
        constants=constants,
        runs=len(cases),
        sources=(),
        date="",
        median_error=_median(held, measured),
    )


def _median(predicted: Floats, measured: Floats) -> float:
    return float(np.median(np.abs(predicted / measured - 1.0)))


def main(folder: str = "docs", *only: str) -> None:
    """Write the document and its figures, or only some of its rows again."""
    if only:
        renew(Path(folder) / "validation.md", only)
        return
    from_clock = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        weighing = {name: pool.submit(judge_memory, *asked) for name, asked in MEMORY.items()}
        judging = [pool.submit(judge, split) for split in SPLITS]
        moving = [pool.submit(transfer, each) for each in TRANSFERS]
        apart, strange = pool.submit(elsewhere), pool.submit(strangers)
        memory = {name: found.result() for name, found in weighing.items()}
        judged = [found.result() for found in judging]
        transfers = [found.result() for found in moving]
    for each in judged:
        sys.stderr.write(f"{each.split.title}: {each.seconds:.0f} s\n")
    weights = {name: row for name, (row, _) in memory.items()}
    elsewhere_found = apart.result(), strange.result()
    text = document(judged, weights, transfers, *elsewhere_found, DRAWS, f"whole on {_today()}")
    write_text(Path(folder) / "validation.md", text)
    _figures(judged, [o for _, outcomes in memory.values() for o in outcomes], Path(folder))
    sys.stderr.write(f"wrote {folder}/validation.md in {time.perf_counter() - from_clock:.0f} s\n")


def renew(path: Path, words: Sequence[str]) -> None:
    """Make the rows again whose titles hold a word, and the section elsewhere where it is one."""
    judged = [judge(each) for each in SPLITS if _named(each.title, words)]
    transfers = [transfer(each) for each in TRANSFERS if _named(each.title, words)]
    weights = {
        name: judge_memory(*asked)[0]
        for name, asked in MEMORY.items()
        if _named(f"memory: {name}", words)
    }
    apart = elsewhere() if APART.lower().startswith(tuple(word.lower() for word in words)) else []
    if not (judged or transfers or weights or apart):
        titles = ", ".join(each.title for each in (*SPLITS, *TRANSFERS))
        raise InputError(
            f"no row is called {' or '.join(words)}; rows: {titles}; or memory, or elsewhere"
        )
    new = document(judged, weights, transfers, apart, strangers() if apart else [], DRAWS, "")
    whole = [CALIBRATIONS, *([APART] if apart else [])]
    write_text(path, renewed(path.read_text(encoding="utf-8"), new, whole, _today(), words))


def _named(title: str, words: Sequence[str]) -> bool:
    return any(word.lower() in title.lower() for word in words)


def _today() -> str:
    return datetime.date.today().isoformat()


def _figures(judged: Sequence[Judged], weighed: Sequence[Outcome], folder: Path) -> None:
    seen: set[tuple[str, int]] = set()
    timed = []
    for each in (o for found in judged for o in found.outcomes):
        key = each.run.file, each.run.line
        if key not in seen:
            seen.add(key)
            timed.append(each)
    for name, what, outcomes in (
        ("time", "step time", timed),
        ("memory", "peak memory", [o for o in weighed if o.measured_bytes]),
    ):
        drawn = Validation(len(outcomes), {}, tuple(outcomes), {})
        write_figure(plot_validation(drawn, what), folder / "figures" / f"validation-{name}.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
