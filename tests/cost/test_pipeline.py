"""Closed forms against the event engine: equal where transfers are free, a bound elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.pipeline import pipeline_seconds
from planner.schedule import lowering
from planner.schedule.action import RECEIVES, WHOLE_STAGE, Action, Kind
from planner.schedule.check import send_of
from planner.simulator.engine import Task, run

names = st.sampled_from(["gpipe", "1f1b"])
durations = st.integers(1, 9).map(float)


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[str, list[float], list[float], int]:
    stages = draw(st.integers(1, 7))
    forward = draw(st.lists(durations, min_size=stages, max_size=stages))
    backward = draw(st.lists(durations, min_size=stages, max_size=stages))
    return draw(names), forward, backward, draw(st.integers(1, 12))


def played(name: str, forward: list[float], backward: list[float], m: int, hop: float) -> float:
    grid = lowering.lower(name, len(forward), m)
    flat = [a for order in grid for a in order if a.kind not in WHOLE_STAGE]
    where = {action: index for index, action in enumerate(flat)}

    def task(action: Action) -> Task:
        send = send_of(action)
        cost = {Kind.FORWARD: forward, Kind.BACKWARD: backward}.get(action.kind)
        seconds = cost[action.stage] if cost else hop if action.kind in RECEIVES else 0.0
        return Task(action.stage, seconds, () if send is None else (where[send],))

    return max(end for _, end in run([task(action) for action in flat]))


def closed(name: str, forward: list[float], backward: list[float], m: int, hop: float) -> float:
    arrays = np.array([forward]), np.array([backward])
    return float(pipeline_seconds(name, *arrays, np.array([m]), np.array([hop]))[0])


@given(pipelines())
def test_equal_to_the_replay_with_free_transfers(
    case: tuple[str, list[float], list[float], int],
) -> None:
    assert closed(*case, 0.0) == pytest.approx(played(*case, 0.0), rel=1e-12)


@given(pipelines(), st.integers(0, 3))
def test_never_above_the_replay_with_costly_transfers(
    case: tuple[str, list[float], list[float], int], hop: int
) -> None:
    assert closed(*case, float(hop)) <= played(*case, float(hop)) * (1 + 1e-12)


@given(st.integers(1, 8), st.integers(1, 16), durations, durations, names)
def test_equal_stages_give_the_textbook_bubble(
    stages: int, m: int, f: float, b: float, name: str
) -> None:
    even = closed(name, [f] * stages, [b] * stages, m, 0.0)
    assert even == pytest.approx((m + stages - 1) * (f + b), rel=1e-12)


@given(pipelines())
def test_at_least_the_work_of_the_slowest_stage(
    case: tuple[str, list[float], list[float], int],
) -> None:
    _, forward, backward, m = case
    slowest = max(f + b for f, b in zip(forward, backward, strict=True))
    assert closed(*case, 0.0) >= m * slowest


def test_published_example() -> None:
    """Uneven 1F1B of the reference notes: forward 1/3, backward 2/3, 16 microbatches."""
    stages = [9.0, 8.0, 8.0, 7.0]
    seconds = closed("1f1b", [t / 3 for t in stages], [2 * t / 3 for t in stages], 16, 0.0)
    assert seconds == pytest.approx(163.0, abs=0.05)
