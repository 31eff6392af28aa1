"""Branch and bound against all plans, where the label bound is tight and where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.estimate import EXACT as SOLVED
from planner.search.inner.branch import AT_ONCE, branch
from planner.search.inner.cut import Inner
from planner.search.inner.labels import minimise
from planner.search.inner.problem import RELATIVE, Problem, ScheduleName
from planner.search.inner.static_order import step_seconds, steps
from tests.search import brute_force
from tests.search.problems import plans_of, schedules, seeds, transformer, wild

EXACT = 1 + RELATIVE


def best_of(problem: Problem) -> float:
    return float(steps(problem, plans_of(problem.layers, problem.stages)).min())


def is_open(problem: Problem) -> bool:
    """Whether the replay of the label programme's plan is longer than its bound."""
    least = minimise(problem)
    if least.counts is None or least.bound_seconds is None:
        return False
    return step_seconds(problem, least.counts) > least.bound_seconds * EXACT


def check(problem: Problem) -> None:
    best = best_of(problem)
    found = branch(problem, np.inf)
    assert np.isinf(found.open_seconds)
    if found.counts is None:
        assert np.isinf(best)
        return
    assert sum(found.counts) == problem.layers
    assert found.step_seconds == pytest.approx(best, rel=RELATIVE)
    assert step_seconds(problem, found.counts) == pytest.approx(best, rel=RELATIVE)
    assert branch(problem, best).counts is None
    assert branch(problem, best * 1.001).step_seconds == pytest.approx(best, rel=RELATIVE)


@settings(max_examples=25)
@given(schedules, seeds, st.booleans())
def test_it_finds_the_best_of_all_plans(schedule: ScheduleName, seed: int, latency: bool) -> None:
    check(wild(seed, schedule, latency))
    check(transformer(seed, schedule, latency))


@pytest.mark.slow
@settings(max_examples=1500)
@given(schedules, seeds, st.booleans())
def test_it_finds_the_best_of_all_plans_in_many_cases(
    schedule: ScheduleName, seed: int, latency: bool
) -> None:
    check(wild(seed, schedule, latency))
    check(transformer(seed, schedule, latency))


def opened(schedule: ScheduleName, latency: bool) -> list[Problem]:
    """Problems that the label programme leaves open."""
    drawn = (make(n, schedule, latency) for n in range(60) for make in (wild, transformer))
    return [problem for problem in drawn if is_open(problem)]


@pytest.mark.parametrize(
    ("schedule", "latency"), [("1f1b", False), ("1f1b", True), ("zb-h1", False), ("zb-h1", True)]
)
def test_it_closes_what_labels_leave_open(schedule: ScheduleName, latency: bool) -> None:
    """Late reductions, costly hops and split backwards: some of the plans are not the best."""
    problems, better = opened(schedule, latency), 0
    assert len(problems) >= 10
    for problem in problems:
        least = minimise(problem)
        assert least.counts is not None
        step = step_seconds(problem, least.counts)
        found, best = branch(problem, step), best_of(problem)
        assert np.isinf(found.open_seconds)
        assert min(step, found.step_seconds) == pytest.approx(best, rel=RELATIVE)
        assert found.nodes < len(plans_of(problem.layers, problem.stages)) * problem.stages
        better += found.counts is not None
    assert better


def hard() -> Problem:
    """Hops that take time, as many microbatches as stages: the gap is large, the tree wide."""
    stages, layers = 8, 40
    held = np.repeat(np.arange(layers + 1.0)[None, None], stages, axis=0)
    head = np.zeros((stages, 1, 1))
    head[-1] = 1.7
    nothing = np.zeros_like(held)
    forward = held + head
    return Problem("1f1b", stages, stages, layers, forward, 2 * forward, nothing, nothing, 0.05)


def test_what_a_node_limit_leaves_is_bounded() -> None:
    problem = hard()
    least = minimise(problem)
    assert least.counts is not None
    step = step_seconds(problem, least.counts)
    whole = branch(problem, step, limit=10**6)
    assert np.isinf(whole.open_seconds)
    best = min(step, whole.step_seconds)
    cut = branch(problem, step, limit=500)
    assert cut == branch(problem, step, limit=500)
    assert cut.nodes < 500 + AT_ONCE * (problem.most + 1)
    assert cut.nodes < whole.nodes
    assert cut.open_seconds <= best * EXACT
    assert min(step, cut.step_seconds) >= best / EXACT


OPEN = [13, 14, 55, 129]
"""Drawn questions with outer choices that labels alone left open: late exposed reductions."""


@pytest.mark.parametrize("seed", OPEN)
def test_inner_problems_of_the_real_cost_are_closed(seed: int) -> None:
    blocks, nodes = brute_force.drawn(seed, free_stages=True), 0
    for one in brute_force.outer_choices(blocks):
        if one.pp == 1 or one.schedule not in SOLVED:
            continue
        found = Inner(blocks, one, np.inf).solve(0, np.inf, blocks.model.layers)
        if found.nodes:
            best = brute_force.play(blocks, one).step_seconds.min()
            assert np.isinf(found.open_seconds)
            assert found.best is not None
            assert found.best.step_seconds == pytest.approx(best, rel=RELATIVE)
        nodes += found.nodes
    assert nodes
