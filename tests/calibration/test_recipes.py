"""Recipes: which runs their constants are fitted to."""

import dataclasses

from planner.calibration.case_tables import CaseTables
from planner.calibration.recipes import Recipe, fit_peaks
from planner.spec import catalog
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs
from planner.spec.runs.where import compile_where

SINGLE = Recipe("h100-sxm", "nanotron", {}, where="micro_batch == 1", memory=("gathered_share",))


def layouts() -> list[Case]:
    runs = read_runs(catalog.FOLDER / "runs" / "hf_ultrascale.csv")
    asked = compile_where('"3B" in model and n_gpus == 8 and pp == 1 and tp > 1')
    return list(make_cases([run for run in runs if asked(run)]).cases[:8])


def test_peaks_of_runs_that_are_not_chosen_do_not_move_the_fit() -> None:
    cases = layouts()
    chosen = SINGLE.chosen(cases)
    assert [cases[place].layout.micro_batch for place in chosen] == [1] * len(chosen)
    assert 0 < len(chosen) < len(cases)
    odd = [
        case
        if place in chosen
        else dataclasses.replace(case, peak_bytes=9 * (case.peak_bytes or 1))
        for place, case in enumerate(cases)
    ]
    fits = [fit_peaks(SINGLE, CaseTables(each), None).values for each in (cases, odd)]
    assert fits[0] == fits[1]
    everything = fit_peaks(dataclasses.replace(SINGLE, where=""), CaseTables(odd), None)
    assert everything.values != fits[0]
