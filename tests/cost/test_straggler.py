"""Laws of stragglers: nobody waits alone, and the wait grows slower than the machine."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import Estimates, estimate
from planner.cost.straggler import slowest_of, waits
from tests.cost.drawn import questions, replaced, with_traits

DRAWN = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Question = tuple[Blocks, Candidates]


@pytest.mark.parametrize("replicas", [2, 3, 8, 64, 512])
def test_the_slowest_is_the_mean_of_largest_normals(replicas: int) -> None:
    """20 000 drawn maxima; their mean is known to 1 %."""
    drawn = np.random.default_rng(replicas).standard_normal((20_000, replicas)).max(axis=1)
    assert slowest_of(replicas) == pytest.approx(drawn.mean(), rel=0.05)


@given(st.integers(1, 100_000), st.integers(1, 1000))
def test_more_replicas_wait_longer_and_ever_less_so(few: int, more: int) -> None:
    assert slowest_of(few) < slowest_of(few + more)
    assert slowest_of(few) <= math.sqrt(2 * math.log(few)) + 1e-12
    assert slowest_of(1) == 0.0


@pytest.mark.parametrize("doublings", range(1, 8))
def test_a_published_correction_is_this_law(doublings: int) -> None:
    """SimuMax multiplies a step by 1 + k/(k+1) * 0.09 * sqrt(k), k = log2 of the replicas."""
    k = doublings
    published = k / (k + 1) * 0.09 * math.sqrt(k)
    assert 0.081 * slowest_of(2**k) == pytest.approx(published, abs=0.005)


def test_cards_of_one_node_do_not_wait_for_each_other() -> None:
    dp, devices = np.array([8, 8, 8, 1]), np.array([8, 16, 64, 64])
    expected = [0.1 * slowest_of(each) for each in (1, 2, 8, 1)]
    assert waits(0.1, dp, devices, 8) == pytest.approx(expected)


def estimated(question: Question, spread: float) -> Estimates:
    blocks, table = question
    return estimate(with_traits(blocks, straggler_spread=spread), table)


@DRAWN
@given(questions(dp=1), st.floats(0, 1))
def test_one_replica_waits_for_nobody(question: Question, spread: float) -> None:
    assert (estimated(question, spread).wait_share == 0).all()


@DRAWN
@given(questions(), st.floats(0.001, 0.5))
def test_the_wait_is_all_that_stragglers_add(question: Question, spread: float) -> None:
    free, held = (estimated(question, s) for s in (0.0, spread))
    assert held.step_seconds == pytest.approx(free.step_seconds + held.waits, rel=1e-9)
    assert (held.bound_seconds >= free.bound_seconds * (1 - 1e-12)).all()
    assert (held.bound_seconds <= held.step_seconds * (1 + 1e-9)).all()
    assert (held.wait_share <= spread * 3).all()
    blocks, table = question
    more = estimated((blocks, replaced(table, dp=2 * table.dp)), spread)
    assert (more.wait_share >= held.wait_share * (1 - 1e-12)).all()
