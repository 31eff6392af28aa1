"""Bounds never exceed the exact replay; T5 and GPipe's form equal it where they say so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.search.inner import bounds
from planner.search.inner.bounds import Pipeline
from planner.search.inner.problem import RELATIVE, Chosen, ScheduleName
from planner.search.inner.static_order import ends
from tests.search.inner.test_static_order import problem_of
from tests.search.problems import seeds

EXACT = 1 + RELATIVE


def line_of(seed: int, latency: bool) -> Pipeline:
    rng = np.random.default_rng(seed)
    p, high = int(rng.integers(1, 11)), int(rng.choice([2, 9, 50]))
    forward, backward = rng.integers(1, high + 1, (2, p)).astype(float)
    if rng.random() < 0.3:  # forward-heavy beside backward-heavy stages
        forward, backward = np.where(rng.random((2, p)) < 0.5, 1.0, 50.0)
    hops = rng.integers(0, 4, p - 1) * float(latency)
    return Pipeline(forward, backward, hops, int(rng.integers(1, 40)))


def replay(schedule: ScheduleName, line: Pipeline, weights: float = 0.0) -> np.ndarray:
    """Ends of all stages; weights: the share of the backward that is the weight gradient."""
    f, b = line.forward[None], line.backward[None] * (1 - weights)
    problem = problem_of(schedule, len(line.forward), line.microbatches, line.latency)
    return ends(problem, Chosen(f, b, line.backward[None] * weights, f, f))[0]


def check(seed: int, latency: bool) -> None:
    line = line_of(seed, latency)
    step, total = replay("1f1b", line)[0], line.total
    p, m, hops = len(total), line.microbatches, float(line.latency.sum())
    t2, t3 = bounds.two_sided(line), bounds.cycles(line)
    t4 = bounds.any_split(float(total.sum()), p, m, hops, float(total.max()))
    t5 = bounds.staircase(line)
    assert t2 <= t3 * EXACT
    assert t3 <= t5 * EXACT
    assert t5 <= step * EXACT
    assert t4 <= step * EXACT
    if not latency:
        assert t5 == pytest.approx(step, rel=RELATIVE)
    gpipe = replay("gpipe", line)[0]
    assert bounds.gpipe(line) == pytest.approx(gpipe, rel=RELATIVE)
    assert t4 <= gpipe * EXACT


@given(seeds, st.booleans())
def test_bounds_hold_and_t5_is_exact_without_latency(seed: int, latency: bool) -> None:
    check(seed, latency)


@pytest.mark.slow
@settings(max_examples=5000)
@given(seeds, st.booleans())
def test_bounds_in_thousands_of_cases(seed: int, latency: bool) -> None:
    check(seed, latency)


def test_a_quoted_formula_is_no_bound() -> None:
    """sum t + (m-1) max t exceeds the replay: the slow stage fills the others' bubbles."""
    line = Pipeline(np.array([3.0, 1.0, 1.0]), np.array([3.0, 1.0, 3.0]), np.zeros(2), 4)
    quoted = line.total.sum() + 3 * line.total.max()
    assert replay("1f1b", line)[0] < quoted


def test_equal_stages_give_the_textbook_bubble() -> None:
    line = Pipeline(np.ones(4), 2 * np.ones(4), np.zeros(3), 8)
    assert bounds.staircase(line) == replay("1f1b", line)[0] == 3 * (8 + 4 - 1)
    assert bounds.any_split(12.0, 4, 8, 0.0, 3.0) == 3 * (8 + 4 - 1)
