"""Closed forms against the event engine: equal where transfers are free, a bound elsewhere."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.pipeline import (
    ends_in_flight,
    holding_seconds,
    in_flight,
    interleaved_seconds,
    pipeline_seconds,
)
from planner.schedule import alive, lowering
from planner.schedule.action import RECEIVES, WHOLE_STAGE, Action, Kind
from planner.schedule.check import send_of
from planner.schedule.orders import default_chunks, orders
from planner.simulator.engine import Task, run
from planner.spec.documents import InputError
from planner.spec.runtime import SCHEDULES

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


def holding(name: str, forward: list[float], backward: list[float], m: int, hop: float) -> float:
    arrays = np.array([forward]), np.array([backward])
    return float(holding_seconds(name, *arrays, np.array([m]), np.array([hop]))[0])


@given(pipelines(), st.integers(0, 3))
def test_equal_to_the_replay_where_receives_hold_their_rank(
    case: tuple[str, list[float], list[float], int], hop: int
) -> None:
    assert holding(*case, float(hop)) == pytest.approx(played(*case, float(hop)), rel=1e-12)


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


Move = tuple[str, int, int]
"""("F" or "B", chunk, microbatch)."""


def interleaved_orders(p: int, v: int, m: int) -> list[list[Move]]:
    """Narayanan et al. 2021: chunks in turns of p microbatches, m a multiple of p."""

    def nth(k: int) -> tuple[int, int]:
        turn, within = divmod(k, p * v)
        chunk, place = divmod(within, p)
        return chunk, turn * p + place

    ahead: list[Move] = [("F", *nth(k)) for k in range(m * v)]
    back: list[Move] = [("B", v - 1 - nth(k)[0], nth(k)[1]) for k in range(m * v)]
    orders = []
    for rank in range(p):
        warm = min(2 * (p - 1 - rank) + (v - 1) * p, m * v)
        paired = [move for pair in zip(ahead[warm:], back, strict=False) for move in pair]
        orders.append(ahead[:warm] + paired + back[m * v - warm :])
    return orders


def interleaved(p: int, v: int, m: int, f: float, b: float, hop: float = 0.0) -> float:
    """The same, played; a receive holds its rank for a hop."""
    flat = [(rank, *move) for rank, o in enumerate(interleaved_orders(p, v, m)) for move in o]
    where = {(kind, c * p + rank, j): i for i, (rank, kind, c, j) in enumerate(flat)}

    def task(rank: int, kind: str, chunk: int, j: int) -> Task:
        stage = chunk * p + rank
        below = ("F", stage - 1, j) if kind == "F" else ("B", stage + 1, j)
        if kind == "B" and stage == p * v - 1:
            below = ("F", stage, j)
        after = (where[below],) if below in where else ()
        remote = any(flat[index][0] != rank for index in after)
        return Task(rank, (f if kind == "F" else b) / v + hop * remote, after)

    return max(end for _, end in run([task(*each) for each in flat]))


def closed_interleaved(p: int, v: int, m: int, f: float, b: float, hop: float = 0.0) -> float:
    arrays = np.full((1, p), f), np.full((1, p), b)
    return float(interleaved_seconds("1f1b", *arrays, np.array([m]), np.array([hop]), v)[0])


ranks, chunks, turns = st.integers(1, 6), st.integers(2, 4), st.integers(1, 4)


@given(ranks, chunks, turns, durations, durations)
def test_interleaved_equals_the_event_engine(
    p: int, v: int, turns: int, f: float, b: float
) -> None:
    assert closed_interleaved(p, v, p * turns, f, b) == pytest.approx(
        interleaved(p, v, p * turns, f, b), rel=1e-12
    )


@given(st.integers(2, 5), chunks, st.integers(2, 4), durations, durations)
def test_more_chunks_pay_for_their_messages(p: int, v: int, turns: int, f: float, b: float) -> None:
    """With small hops the formula follows the engine to a few hops of 2mv."""
    m, hop = p * turns, 1e-3
    more = interleaved(p, v, m, f, b, hop) - interleaved(p, v, m, f, b)
    formula = closed_interleaved(p, v, m, f, b, hop) - closed_interleaved(p, v, m, f, b)
    assert formula == pytest.approx(more, abs=hop * (m + 2 * p))
    assert more > 2 * m * (v - 1) * hop


@given(pipelines(), st.integers(1, 5), st.integers(0, 3))
def test_one_chunk_is_the_plain_form_and_more_shrink_the_bubble(
    case: tuple[str, list[float], list[float], int], v: int, hop: int
) -> None:
    name, forward, backward, m = case
    arrays = np.array([forward]), np.array([backward]), np.array([m])

    def at(chunks: int, hop: float) -> float:
        return float(interleaved_seconds(name, *arrays, np.array([hop]), chunks)[0])

    assert at(1, hop) == holding(*case, hop)
    assert at(v + 1, 0.0) <= at(v, 0.0) * (1 + 1e-12)
    assert at(v, hop) >= at(v, 0.0) >= m * (arrays[0] + arrays[1]).max() * (1 - 1e-12)


@given(ranks, st.integers(2, 4), turns)
def test_held_microbatches_are_those_of_the_order(p: int, v: int, turns: int) -> None:
    m = np.array([p * turns])
    held, ends = (each("1f1b", p, m, v)[0] for each in (in_flight, ends_in_flight))
    for rank, order in enumerate(interleaved_orders(p, v, p * turns)):
        most, first, last = (
            max(itertools.accumulate(1 if kind == "F" else -1 for kind, c, _ in order if c in own))
            for own in (range(v), [0], [v - 1])
        )
        assert held[rank] == pytest.approx(most / v)
        assert rank > 0 or ends[0] >= first
        assert rank < p - 1 or p == 1 or ends[-1] == last


@given(names, ranks, st.integers(1, 12))
def test_held_microbatches_without_chunks_are_those_of_the_pattern(
    name: str, p: int, m: int
) -> None:
    expected = alive.in_flight(orders(name, p, m)).tolist()
    assert in_flight(name, p, np.array([m]))[0].tolist() == expected
    assert ends_in_flight(name, p, np.array([m]))[0].tolist() == expected


@given(st.sampled_from(SCHEDULES), ranks, st.integers(1, 3))
def test_held_microbatches_of_every_schedule_are_counted(name: str, p: int, rounds: int) -> None:
    m, v = 2 * p * rounds, default_chunks(name)
    made, counts = orders(name, p, m, v), np.array([m, m])
    expected = (alive.in_flight(made) / v).tolist()
    assert in_flight(name, p, counts, v).tolist() == [expected, expected]
    ends, stages = ends_in_flight(name, p, counts, v)[0], alive.stages_in_flight(made)
    assert ends[0] >= stages[0]
    assert ends[-1] >= stages[-1]


def test_a_schedule_without_a_closed_form_is_refused() -> None:
    with pytest.raises(InputError, match="'zbv' is not costed yet"):
        closed("zbv", [1.0], [1.0], 2, 0.0)
