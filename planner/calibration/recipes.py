"""Calibrations: those of the catalog, made from the catalog's measured runs.

    python -m planner.calibration.recipes [PAIR ...]        (make calibrations)

A recipe names the runs of one (accelerator, runtime), which of them are fitted, and what is held
out together.
Per recipe: fit all constants, keep those that the runs identify, fit again; then leave out group
after group for the held-out errors and the bands. Numbers are rounded, so that the same runs give
the same file; review the diff.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planner.calibration import fitting
from planner.calibration.case_tables import CaseTables, problem
from planner.calibration.fitting import Fit, Values
from planner.calibration.holdout import Held, band, coverage, held_out, spread
from planner.spec import catalog, documents
from planner.spec.calibration import Calibration, Constant, ConstantName
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs
from planner.spec.runs.where import compile_where

DATE = "2026-11-30"
"""When the runs and the recipes were last changed."""

DIGITS = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a calibration is fitted on.

    groups: file of the catalog's runs -> columns that say what is held out together.
    where: which runs are fitted; peaks are judged of all. memory: constants fitted to peaks, none
    where no peak is measured.
    """

    accelerator: str
    runtime: str
    groups: Mapping[str, tuple[str, ...]]
    where: str = ""
    memory: tuple[ConstantName, ...] = ()

    @property
    def name(self) -> str:
        """The pair."""
        return f"{self.accelerator}--{self.runtime}"

    def chosen(self, cases: Sequence[Case]) -> list[int]:
        """Places of the cases that are fitted."""
        fits = compile_where(self.where) if self.where else lambda _: True
        return [place for place, case in enumerate(cases) if fits(case.run)]


RECIPES = (
    Recipe(
        "h100-sxm",
        "nanotron",
        {"hf_ultrascale": ("model", "n_gpus")},
        where="mfu_pct >= 10 and peak_mem_gib < 66",
        memory=("gathered_share",),
    ),
    Recipe("h100-sxm", "nemo", {"nemo_2407": ("model",)}),
    Recipe(
        "a100-80",
        "megatron-deepspeed",
        {"vtrain_single": ("hidden", "tp"), "bigscience_bloom_prequel": ("tp", "pp", "dp")},
        memory=("activation_scale", "context_bytes"),
    ),
    Recipe("a100-80", "composer-fsdp", {"llm_foundry": ("model",)}),
    Recipe("a100-40", "composer-fsdp", {"llm_foundry": ("model",)}),
    Recipe("a100-80", "megatron-lm-2021", {"megatron_sc21_table1": ("model",)}),
    Recipe("a100-80", "megatron-lm-2022", {"korthikanti_2022": ("model", "recompute")}),
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and the held-out predictions behind it."""

    calibration: Calibration
    time_cases: tuple[Case, ...]
    time: Held
    memory_cases: tuple[Case, ...] = ()
    memory: Held | None = None
    constants: dict[ConstantName, Constant] = field(default_factory=dict)


def cases_of(recipe: Recipe) -> list[Case]:
    """Every run of the recipe's files and device that can be predicted, whatever its time."""
    runs = [
        run for name in recipe.groups for run in read_runs(catalog.FOLDER / "runs" / f"{name}.csv")
    ]
    cases = [case for case in make_cases(runs).cases if problem(case) is None]
    return [case for case in cases if case.cluster.accelerator.name == recipe.accelerator]


def group_of(recipe: Recipe, case: Case) -> tuple[object, ...]:
    """What is held out together with a case."""
    name = case.run.file.replace("\\", "/").rpartition("/")[2].removesuffix(".csv")
    return (name, *(getattr(case.run, column) for column in recipe.groups[name]))


def fit(recipe: Recipe) -> Fitted:
    """Fit a recipe and hold out its groups."""
    cases = cases_of(recipe)
    timed = [case for case in (cases[i] for i in recipe.chosen(cases)) if case.step_seconds]
    weighed = [case for case in cases if case.peak_bytes] if recipe.memory else []
    time_fit, time = _time(recipe, timed)
    memory_fit, memory = _memory(recipe, weighed)
    made = Calibration(
        accelerator=recipe.accelerator,
        runtime=recipe.runtime,
        constants=_rounded({**time_fit.constants, **memory_fit.constants}),
        runs=len(timed),
        memory_runs=len(recipe.chosen(weighed)),
        sources=tuple(dict.fromkeys(case.run.source or "" for case in cases)),
        where=recipe.where,
        groups="; ".join(f"{name}: {', '.join(by)}" for name, by in recipe.groups.items()),
        mixtures=any(case.model.has_experts for case in timed),
        date=DATE,
        **_quality("time", recipe, timed, time.step_seconds),
        **(_quality("memory", recipe, weighed, memory.peak_bytes) if memory else {}),
    )
    return Fitted(made, tuple(timed), time, tuple(weighed), memory)


def _time(recipe: Recipe, cases: Sequence[Case]) -> tuple[Fit, Held]:
    tables = CaseTables(cases)
    names = fitting.fit_time(tables).identified()

    def again(some: CaseTables, start: Values | None) -> Fit:
        return fitting.fit_time(some, start, names)

    found = again(tables, None)
    groups = [group_of(recipe, case) for case in cases]
    return found, held_out(tables, groups, again, found.values)


def _memory(recipe: Recipe, cases: Sequence[Case]) -> tuple[Fit, Held | None]:
    if not cases:
        return Fit({}, {}), None
    tables = CaseTables(cases)

    def again(some: CaseTables, start: Values | None) -> Fit:
        return fit_peaks(recipe, some, start)

    found = again(tables, None)
    groups = [group_of(recipe, case) for case in cases]
    return found, held_out(tables, groups, again, found.values)


def fit_peaks(recipe: Recipe, tables: CaseTables, start: Values | None) -> Fit:
    """The recipe's constants of memory, fitted to the peaks of the runs whose times are fitted."""
    chosen = recipe.chosen(tables.cases)
    some = tables if len(chosen) == len(tables.cases) else tables.only(chosen)
    return fitting.fit_memory(some, start, recipe.memory)


def _quality(
    what: str, recipe: Recipe, cases: Sequence[Case], predicted: fitting.Floats
) -> dict[str, Any]:
    """Band, error and coverage of held-out predictions, under the document's keys."""
    measured = [case.step_seconds if what == "time" else case.peak_bytes for case in cases]
    ratios = np.array(measured, dtype=np.float64) / predicted
    low, high = band(ratios)
    groups = [group_of(recipe, case) for case in cases]
    prefix = "" if what == "time" else "memory_"
    found = {
        f"{what}_low": low,
        f"{what}_high": high,
        f"{prefix}median_error": float(np.median(np.abs(1 / ratios - 1))),
        f"{prefix}coverage": coverage(ratios, groups),
    }
    rounded: dict[str, Any] = {key: _round(value) for key, value in found.items()}
    if what == "memory":
        rounded["memory_quantiles"] = tuple(_round(each) for each in spread(ratios).quantiles)
    return rounded


def _rounded(constants: Mapping[ConstantName, Constant]) -> dict[ConstantName, Constant]:
    return {
        name: Constant(**{key: _round(number) for key, number in dict(constant).items()})
        for name, constant in constants.items()
    }


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def main(names: Sequence[str]) -> None:
    """Write the calibrations of the catalog, or those named."""
    for recipe in RECIPES:
        if names and recipe.name not in names:
            continue
        path = catalog.FOLDER / "calibrations" / f"{recipe.name}.json"
        made = fit(recipe).calibration
        documents.save(made, path)
        error = made.median_error or 0.0
        sys.stderr.write(f"{recipe.name}: {made.runs} runs, held out {error:.1%}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
