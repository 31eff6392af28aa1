"""The label DP against all plans: a bound everywhere, the best plan itself where it says so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.search.inner.labels import frontier, minimise
from planner.search.inner.problem import RELATIVE, Problem, ScheduleName
from planner.search.inner.static_order import step_seconds, steps
from tests.search.problems import plans_of, schedules, seeds, transformer, wild

EXACT = 1 + RELATIVE


def best_of(problem: Problem) -> float:
    return float(steps(problem, plans_of(problem.layers, problem.stages)).min())


def check_bound(problem: Problem) -> None:
    best, found = best_of(problem), minimise(problem)
    if found.bound_seconds is None or found.counts is None:
        assert np.isinf(best)
        return
    assert found.bound_seconds <= best * EXACT
    assert step_seconds(problem, found.counts) >= best / EXACT
    assert sum(found.counts) == problem.layers
    narrowed = minimise(problem, best * (1 + 1e-6))
    assert narrowed.bound_seconds is not None
    assert found.bound_seconds <= narrowed.bound_seconds * EXACT <= best * EXACT**2


def check_exact(problem: Problem) -> None:
    best, found = best_of(problem), minimise(problem)
    if found.counts is None:
        assert np.isinf(best)
        return
    assert found.bound_seconds == pytest.approx(best, rel=RELATIVE)
    assert step_seconds(problem, found.counts) == pytest.approx(best, rel=RELATIVE)
    assert minimise(problem, best).counts is None


@settings(max_examples=40)
@given(schedules, seeds, st.booleans())
def test_never_above_the_best_plan(schedule: ScheduleName, seed: int, latency: bool) -> None:
    check_bound(wild(seed, schedule, latency))
    check_bound(transformer(seed, schedule, latency))


@settings(max_examples=40)
@given(seeds, st.booleans())
def test_gpipe_is_exact(seed: int, latency: bool) -> None:
    check_exact(wild(seed, "gpipe", latency))
    check_exact(transformer(seed, "gpipe", latency))


@settings(max_examples=40)
@given(seeds)
def test_1f1b_without_latency_is_exact_but_for_reductions(seed: int) -> None:
    check_exact(wild(seed, "1f1b", reduces=False))


@pytest.mark.slow
@settings(max_examples=1500)
@given(schedules, seeds, st.booleans())
def test_never_above_the_best_plan_in_many_cases(
    schedule: ScheduleName, seed: int, latency: bool
) -> None:
    check_bound(wild(seed, schedule, latency))
    check_bound(transformer(seed, schedule, latency))


@pytest.mark.slow
@settings(max_examples=1500)
@given(seeds)
def test_exact_in_many_cases(seed: int) -> None:
    check_exact(wild(seed, "gpipe", latency=True))
    check_exact(wild(seed, "1f1b", reduces=False))


@given(seeds)
def test_the_frontier_keeps_what_nothing_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, group = rng.integers(0, 5, (40, 3)).astype(float), rng.integers(0, 3, 40)
    kept = frontier(labels, group)
    for number in range(40):
        rivals = kept[(group[kept] == group[number])]
        beaten = (labels[rivals] <= labels[number]).all(axis=1)
        assert beaten.any()
        if number in kept:
            assert rivals[beaten].tolist() == [number]
