"""Fitting: constants that made the runs are found again; what no run says stays at its prior."""

import dataclasses
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from planner.calibration import fitting
from planner.calibration.case_tables import CaseTables
from planner.calibration.holdout import band, coverage
from planner.spec import catalog
from planner.spec.runs.case import Case, make_cases
from planner.spec.runs.run import read_runs

TRUE = {
    "matmul_efficiency": 0.6,
    "attention_efficiency": 0.3,
    "memory_efficiency": 0.5,
    "layer_host_seconds": 3e-3,
    "step_seconds": 0.1,
    "loss_passes": 10.0,
}


@cache
def layouts() -> tuple[Case, ...]:
    """Every eighth row of the llm-foundry tables, whatever they measured."""
    runs = read_runs(catalog.FOLDER / "runs" / "llm_foundry.csv")[::8]
    return make_cases(runs).cases


def made(noise: float = 0.0, outlier: float = 1.0) -> list[Case]:
    """The layouts with the times that TRUE gives them."""
    cases = list(layouts())
    seconds = CaseTables(cases).predict(TRUE)[0]
    seconds *= np.exp(noise * np.random.default_rng(0).standard_normal(len(cases)))
    seconds[0] *= outlier
    return [
        dataclasses.replace(case, step_seconds=float(t))
        for case, t in zip(cases, seconds, strict=True)
    ]


def errors(cases: list[Case], found: fitting.Fit) -> np.ndarray:
    measured = np.array([case.step_seconds for case in cases])
    return np.abs(CaseTables(cases).predict(found.values)[0] / measured - 1)


@pytest.fixture(scope="module")
def on_one_node() -> tuple[list[Case], fitting.Fit]:
    """The runs without a network between nodes, and the fit to them."""
    cases = [case for case in made() if case.cluster.nodes == 1]
    return cases, fitting.fit_time(CaseTables(cases))


def test_constants_that_made_the_runs_are_found_again(
    on_one_node: tuple[list[Case], fitting.Fit],
) -> None:
    cases, found = on_one_node
    assert np.median(errors(cases, found)) < 0.01
    for name in ("matmul_efficiency", "attention_efficiency"):
        constant = found.constants[name]
        assert constant.value == pytest.approx(TRUE[name], rel=0.05)
        assert constant.low <= constant.value <= constant.high


def test_one_run_in_another_state_moves_little() -> None:
    """A mean would take 1/18 of the logarithm of 5 from it: 9 %."""
    found, pulled = (
        fitting.fit_time(CaseTables(made(0.02, outlier)), TRUE).values for outlier in (1.0, 5.0)
    )
    for name in ("matmul_efficiency", "attention_efficiency"):
        assert pulled[name] == pytest.approx(found[name], rel=0.03)


def test_what_no_run_says_stays_at_its_prior(
    on_one_node: tuple[list[Case], fitting.Fit],
) -> None:
    found = on_one_node[1]
    prior = fitting.PRIORS["network_efficiency"]
    assert found.values["network_efficiency"] == pytest.approx(prior.middle, rel=1e-3)
    assert "network_efficiency" not in found.identified()
    assert "matmul_efficiency" in found.identified()


SIZES = np.linspace(1.0, 3.0, 12)


def on_a_floor(values: Mapping[str, float]) -> fitting.Floats:
    """Steps that grow with their size, but are never shorter than a floor."""
    return np.maximum(SIZES / values["matmul_efficiency"], 1e3 * values["stage_floor_seconds"])


def test_a_floor_that_no_run_lies_on_at_first_is_found() -> None:
    """At its prior's middle the floor is below every step: descent alone sees no slope."""
    true = {"matmul_efficiency": 0.6, "stage_floor_seconds": 4e-3}
    names, alike = tuple(true), np.ones(len(SIZES))
    arguments = (on_a_floor, on_a_floor(true), names, alike)
    stuck = fitting.solve(*arguments, dict.fromkeys(names, 1e-3) | {names[0]: 0.7}, fitting.PRIORS)
    found = fitting.solve(*arguments, None, fitting.PRIORS)
    assert stuck.values["stage_floor_seconds"] == pytest.approx(1e-3, rel=1e-3)
    for name, value in true.items():
        assert found.values[name] == pytest.approx(value, rel=0.02)


@given(st.floats(0.01, 1.0), st.floats(1.0, 50.0))
def test_student_lets_go_of_what_is_far(scale: float, degrees: float) -> None:
    loss = fitting.Student(scale, degrees)
    errors = scale * np.array([-9.0, -2.0, 0.0, 1.0, 2.0, 9.0, 99.0])
    terms = loss(errors)
    assert list(terms) == sorted(terms)
    assert terms[2] == 0
    assert terms[0] == pytest.approx(-terms[5])
    expected = -2 * (stats.t.logpdf(errors / scale, degrees) - stats.t.logpdf(0.0, degrees))
    assert terms**2 == pytest.approx(expected)


def test_evidence_prefers_priors_as_wide_as_the_constants_are_apart() -> None:
    """A straight model, where Laplace's approximation is exact but for the loss."""

    def evidence(share: float, value: float) -> float:
        priors = {
            "matmul_efficiency": fitting.Prior(0.5, 0.01, 10.0, share),
        }
        measured = SIZES / value
        return fitting.solve(
            lambda values: SIZES / values["matmul_efficiency"],
            measured,
            ("matmul_efficiency",),
            np.ones(len(SIZES)),
            None,
            priors,
        ).evidence

    shares = [0.001, 0.01, 0.1, 0.5, 2.0, 10.0]
    assert max(shares, key=lambda share: evidence(share, 0.5)) == 0.001
    assert max(shares, key=lambda share: evidence(share, 0.5 * np.exp(0.5))) == 0.5


@pytest.mark.parametrize("degrees", [1e9, 4.0])
def test_evidence_and_values_without_a_run_are_those_of_the_other_runs(degrees: float) -> None:
    """Exactly where model and loss are straight; near with a loss that lets runs go."""
    priors = {"matmul_efficiency": fitting.Prior(0.5, 0.01, 10.0, 0.3)}
    measured = SIZES * np.exp(0.05 * np.random.default_rng(3).standard_normal(len(SIZES)))

    def solved(kept: list[int]) -> fitting.Fit:
        sizes, loss = SIZES[kept], fitting.Student(0.05, degrees)
        return fitting.solve(
            lambda values: sizes * 0.5 / values["matmul_efficiency"],
            measured[kept],
            ("matmul_efficiency",),
            np.ones(len(kept)),
            None,
            priors,
            loss,
        )

    rows = list(range(len(SIZES)))
    together = solved(rows)
    for row in rows:
        alone = solved([each for each in rows if each != row])
        near = 1e-3 if degrees > 100 else 0.2
        assert together.evidence_without(row) == pytest.approx(alone.evidence, abs=near)
        assert together.values_without(row) == pytest.approx(alone.values, rel=0.1 * near)


def test_bands_of_drawn_ratios_cover_what_they_say() -> None:
    ratios = np.exp(0.1 * np.random.default_rng(1).standard_normal(400))
    groups = [index % 20 for index in range(400)]
    low, high = band(ratios)
    assert low < 1 < high
    assert 0.75 <= coverage(ratios, groups) <= 0.85
    assert 0.75 <= np.mean((ratios >= low) & (ratios <= high)) <= 0.85


@pytest.mark.parametrize("name", catalog.list_calibrations())
def test_every_calibration_of_the_catalog_is_small_honest_and_has_its_runs(name: str) -> None:
    accelerator, _, runtime = name.partition("--")
    found = catalog.find_calibration(catalog.find_accelerator(accelerator), runtime)
    assert found is not None
    assert found.name == name
    assert not found.borrowed
    assert len(found.constants) <= 12
    assert found.runs >= 4
    assert found.median_error is not None
    assert found.median_error < 0.1
    for constant, value in found.values().items():
        limits = fitting.PRIORS[constant]  # type: ignore[index]
        assert limits.low * 0.99 <= value <= limits.high * 1.01
