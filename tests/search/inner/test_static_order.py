"""The exact replay in numpy against the event engine and the repository's own schedules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedule import patterns
from planner.schedule.action import Kind
from planner.search.inner.problem import Chosen, Floats, Problem, ScheduleName, choose
from planner.search.inner.static_order import ends, static_order, step_seconds, steps
from planner.simulator.engine import Task, run
from tests.search.problems import SCHEDULES, plans_of, schedules, seeds, wild

Move = tuple[int, int]
"""Kind (0 forward, 1 backward or its input gradient, 2 weight gradient) and microbatch."""


def order_of(schedule: ScheduleName, i: int, p: int, m: int) -> list[Move]:
    forwards = [(0, k) for k in range(m)]
    if schedule == "gpipe":
        return forwards + [(1, k) for k in range(m)]
    moves = forwards[: p - i]
    for k in range(m):
        weights = [(2, k - i)] if schedule == "zb-h1" and k >= i else []
        moves += [(1, k), *weights, *forwards[p - i + k : p - i + k + 1]]
    return moves + [(2, k) for k in range(max(m - i, 0), m) if schedule == "zb-h1"]


def played(schedule: ScheduleName, seconds: Floats, hops: Floats, m: int, first: int) -> Floats:
    """Ends of the stages from `first` on, by the event engine. seconds: [3, p]."""
    p = seconds.shape[1]
    flat = [(i, *move) for i in range(first, p) for move in order_of(schedule, i, p, m)]
    where = {action: n for n, action in enumerate(flat)}
    tasks, hopping = [], []
    for i, kind, k in flat:
        source = {0: i - 1, 1: i + 1, 2: -1}[kind]
        after: tuple[int, ...] = ()
        if (source, kind, k) in where:
            after = (len(flat) + len(hopping),)
            sent = (where[source, kind, k],)
            hopping.append(Task(p + len(hopping), float(hops[min(i, source)]), sent))
        tasks.append(Task(i, float(seconds[kind, i]), after))
    times = run(tasks + hopping)
    return np.array([max(times[where[a]][1] for a in flat if a[0] == i) for i in range(first, p)])


def problem_of(schedule: ScheduleName, p: int, m: int, hops: Floats) -> Problem:
    nothing = np.zeros((p, 1, 1))
    weight = nothing if schedule == "zb-h1" else None
    return Problem(schedule, p, m, 0, nothing, nothing, nothing, nothing, hops, 0.0, weight)


@given(schedules, st.integers(1, 7), st.integers(1, 12), seeds, st.data())
def test_equal_to_the_event_engine(
    schedule: ScheduleName, p: int, m: int, seed: int, data: st.DataObject
) -> None:
    first, rng = data.draw(st.integers(0, p - 1)), np.random.default_rng(seed)
    seconds, hops = rng.integers(0, 9, (3, p)).astype(float), rng.integers(0, 4, p - 1) * 1.0
    f, b, w = seconds[:, None, first:]
    got = ends(problem_of(schedule, p, m, hops), Chosen(f, b, w, f, f), first)[0]
    assert got.tolist() == played(schedule, seconds, hops, m, first).tolist()


@given(st.sampled_from(["gpipe", "1f1b"]), st.integers(1, 6), st.integers(1, 9))
def test_the_orders_are_those_of_the_patterns(schedule: ScheduleName, p: int, m: int) -> None:
    order = static_order(schedule, p, m)
    kinds = [Kind.FORWARD, Kind.BACKWARD]
    for stage, expected in enumerate(patterns.pattern(schedule, p, m)):
        got = [kinds[k] for k in order.kind[order.stage == stage].tolist()]
        assert got == [action.kind for action in expected]


@given(schedules, seeds)
def test_many_plans_at_once_are_each_alone(schedule: ScheduleName, seed: int) -> None:
    problem = wild(seed, schedule, latency=True)
    plans = plans_of(problem.layers, problem.stages)[::7]
    together = steps(problem, plans)
    assert together.tolist() == [step_seconds(problem, tuple(plan)) for plan in plans.tolist()]


@given(schedules, seeds)
def test_slower_stages_never_end_sooner(schedule: ScheduleName, seed: int) -> None:
    """Monotone in every duration: what makes the cheapest recompute mix dominant."""
    problem, rng = wild(seed, schedule, latency=True), np.random.default_rng(seed)
    chosen = choose(problem, plans_of(problem.layers, problem.stages)[:1])
    slower = [
        part + rng.integers(0, 2, part.shape)
        for part in (chosen.forward, chosen.backward, chosen.weight)
    ]
    late = ends(problem, Chosen(*slower, chosen.reduce, chosen.update))
    assert (late >= ends(problem, chosen)).all()


@given(seeds)
def test_mirrored_problems_index_the_same_stages(seed: int) -> None:
    problem = wild(seed, "gpipe", latency=True)
    plans = plans_of(problem.layers, problem.stages)
    here, there = choose(problem, plans), choose(problem.mirrored, plans[:, ::-1])
    assert np.array_equal(here.forward, there.forward[:, ::-1])
    assert np.array_equal(here.update, there.update[:, ::-1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_that_disagree_are_refused(schedule: ScheduleName) -> None:
    good, bad = np.zeros((2, 1, 5)), np.zeros((2, 1, 4))
    weight = good if schedule == "zb-h1" else None
    with pytest.raises(ValueError, match="reduce"):
        Problem(schedule, 2, 3, 4, good, good, bad, good, 0.0, 0.0, weight)
    with pytest.raises(ValueError, match="weight"):
        Problem(schedule, 2, 3, 4, good, good, good, good, weight=None if weight is good else good)
    with pytest.raises(ValueError, match="stages 3"):
        Problem(schedule, 3, 3, 4, good, good, good, good, 0.0, 0.0, weight)
