"""A cluster's own runs: what they move, how far, and what they leave alone."""

import dataclasses
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.calibration.case_tables import CaseTables
from planner.calibration.differences import known_calibrations, spreads_between
from planner.calibration.fitting import Fit, constant_of
from planner.calibration.own_runs import Degree, OwnTime, Tried, most_probable, own_time
from planner.spec import catalog
from planner.spec.calibration import Calibration
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs
from planner.spec.runs.where import compile_where

PAIR = "h100-sxm", "nanotron"
ONE_NODE = compile_where('"3B" in model and n_gpus == 8 and pp == 1 and mfu_pct >= 10')


@cache
def ten() -> tuple[Case, ...]:
    """Ten layouts of one model on one node, whatever they measured."""
    runs = read_runs(catalog.FOLDER / "runs" / "hf_ultrascale.csv")
    return make_cases([run for run in runs if ONE_NODE(run)]).cases[:10]


@cache
def start() -> Calibration:
    """What the runs begin from."""
    found = catalog.find_calibration(catalog.find_accelerator(PAIR[0]), PAIR[1])
    assert found is not None
    return found


def made(values: Mapping[str, float], factors: Mapping[int, float] | None = None) -> CaseTables:
    """The layouts with the times that the start gives with some other values, some odd."""
    seconds = CaseTables(ten()).predict({**start().values(), **values})[0]
    for row, factor in (factors or {}).items():
        seconds[row] *= factor
    pairs = zip(ten(), seconds.tolist(), strict=True)
    return CaseTables([dataclasses.replace(case, step_seconds=t) for case, t in pairs])


@cache
def asked() -> OwnTime:
    """How the runs move the start, by the other pairs' differences."""
    return own_time(ten()[0], start(), spreads_between(known_calibrations(without=[PAIR])))


def error(tables: CaseTables, values: Mapping[str, float]) -> float:
    measured = np.array([case.step_seconds for case in tables.cases])
    return float(np.median(np.abs(tables.predict(values)[0] / measured - 1)))


def test_runs_as_the_start_says_leave_it_where_it_is() -> None:
    found, degree = asked().fit(made({}))
    assert degree.share <= 0.25
    for name, value in start().values().items():
        if name in found.values:
            assert found.values[name] == pytest.approx(value, rel=0.01)


def test_another_cluster_is_found_although_three_of_ten_runs_are_slow() -> None:
    slower = {"matmul_efficiency": 0.7 * start().values()["matmul_efficiency"]}
    odd = made(slower, {2: 6.0, 5: 3.0, 7: 2.0})
    clean = made(slower)
    assert error(clean, start().values()) > 0.1
    found, degree = asked().fit(odd)
    assert degree.share > 0.1
    assert error(clean, found.values) < 0.03


@given(
    st.lists(
        st.tuples(st.floats(-1.0, 1.0), st.floats(0.01, 1.0), st.floats(-30.0, 0.0)),
        min_size=1,
        max_size=6,
    )
)
def test_constants_are_the_mean_over_degrees_weighed_by_their_evidence(
    told: list[tuple[float, float, float]],
) -> None:
    """Between the least and the greatest; those of one degree are its own."""
    name = "layer_host_seconds"
    one = dataclasses.replace(asked(), names=(name,))
    middle = np.log(one.priors[name].middle)
    tried = [
        Tried(Fit({name: constant_of(middle + x, s)}, {name: s}, e), Degree(1.0, 1.0), 10)
        for x, s, e in told
    ]
    weights = np.exp([e for _, _, e in told])
    found = one.averaged(tried)
    moved = np.log(found.values[name]) - middle
    expected = np.average([x for x, _, _ in told], weights=weights)
    around = np.average([s**2 + (x - expected) ** 2 for x, s, _ in told], weights=weights)
    assert moved == pytest.approx(expected, abs=1e-6)
    assert found.sigmas[name] == pytest.approx(np.sqrt(around))


@pytest.mark.slow
def test_what_a_run_left_out_leaves_is_what_the_others_say() -> None:
    """One linear step is near the fit to the nine others, for its prediction."""
    tables = made({"matmul_efficiency": 0.7 * start().values()["matmul_efficiency"]}, {4: 1.1})
    tried = [Tried(asked().fit_at(each, tables), each, 10) for each in (Degree(0.5, 0.5),)]
    for row in (0, 4):
        own = tables.only([row])
        stepped = own.predict(asked().averaged(tried, row).values)[0]
        refitted = own.predict(asked().fit_at(tried[0].degree, tables.without([row])).values)[0]
        assert stepped == pytest.approx(refitted, rel=0.01)


@pytest.mark.slow
def test_a_run_left_out_has_no_say_in_how_alike_clusters_are() -> None:
    """Nine runs as the start says, one that takes four times as long: without it nothing moves."""
    tried = asked().tried(made({}, {4: 4.0}))
    shares = [most_probable(tried, without=row).degree.share for row in range(10)]
    assert shares[4] == min(shares) <= most_probable(tried).degree.share
    assert {most_probable(tried).degree} <= {each.degree for each in tried}


def test_the_less_may_remain_the_nearer_the_start_stays() -> None:
    tables = made({"matmul_efficiency": 0.4})
    fits = [asked().fit_at(Degree(share, 1.0), tables) for share in (1.0, 0.1, 0.01)]
    moved = [
        abs(np.log(fit.values["matmul_efficiency"] / start().values()["matmul_efficiency"]))
        for fit in fits
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 0.01


def test_without_a_start_the_catalog_is_in_the_middle() -> None:
    blind = own_time(ten()[0], None, spreads_between([]))
    cluster = ten()[0].cluster
    assert blind.priors["matmul_efficiency"].middle == cluster.accelerator.matmul_efficiency
    assert "stage_floor_seconds" not in blind.names
    assert blind.loss.scale > 0
