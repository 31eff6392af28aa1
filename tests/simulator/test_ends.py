"""Replays of random cases: numpy, plain Python and the event simulator agree to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner.schedule.action import BACKWARD, FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from planner.schedule.orders import ONE_CHUNK, V_SHAPED, default_chunks, problem
from planner.simulator import ends
from planner.simulator.script import Script, compiled, script
from planner.spec.runtime import SCHEDULES
from tests.simulator.orders import heap_ends, made

Floats = NDArray[np.float64]


def drawn(random: np.random.Generator) -> Script:
    """Any schedule, with numbers that it can have."""
    name = str(random.choice(SCHEDULES))
    p, m = int(random.integers(1, 7)), int(random.integers(1, 13))
    v = (
        default_chunks(name)
        if name in ONE_CHUNK or name in V_SHAPED
        else int(random.integers(1, 4))
    )
    if problem(name, p, v, m):
        m = 2 * p * int(random.integers(1, 4))
    return script(name, p, m, v)


def case(seed: int) -> tuple[Script, Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    played = drawn(random)
    latency = random.random(played.stages - 1) * random.integers(0, 2)
    pauses = random.random(played.stages) * random.integers(0, 2)
    return played, random.random((4, played.stages)), latency, pauses


def test_numpy_python_and_the_event_simulator_are_equal_to_the_last_bit() -> None:
    """300 random cases, all schedules."""
    for seed in range(300):
        played, durations, latency, pauses = case(seed)
        table = durations.reshape(1, -1)
        lags, rests = (np.append(seconds, 0.0)[None] for seconds in (latency, pauses))
        numpy, python = (
            play(played, table, lags, rests) for play in (ends.wavefront, ends.one_pass)
        )
        assert np.array_equal(numpy, python), seed
        slow = heap_ends(played.orders, durations, latency.tolist(), pauses.tolist())
        assert ends.ends(played, durations, latency, pauses).tolist() == slow, seed


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_a_batch_is_its_candidates(seed: int, count: int) -> None:
    played, durations, latency, _ = case(seed)
    many = np.random.default_rng(seed).random((2, count, *durations.shape))
    together = ends.ends(played, many, latency)
    spans = ends.makespan(played, many, latency)
    for index in np.ndindex(2, count):
        assert np.array_equal(together[index], ends.ends(played, many[index], latency))
        assert spans[index] == ends.makespan(played, many[index], latency)


def test_batches_larger_than_a_block_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    played, _, latency, _ = case(7)
    many = np.random.default_rng(1).random((23, 4, played.stages))
    whole = ends.makespan(played, many, latency)
    monkeypatch.setattr(ends, "BLOCK", 3 * len(played))
    assert np.array_equal(ends.makespan(played, many, latency), whole)


@given(st.integers(0, 10_000))
def test_at_least_every_ranks_work_and_one_microbatch(seed: int) -> None:
    played, durations, latency, _ = case(seed)
    span = ends.makespan(played, durations, latency)
    for rank in range(played.orders.ranks):
        own = slice(played.orders.starts[rank], played.orders.starts[rank + 1])
        busy = durations[played.orders.kind[own], played.orders.stage[own]].sum()
        assert span >= busy * (1 - 1e-12)
    backward = durations[
        INPUT_GRADIENT if (played.orders.kind == INPUT_GRADIENT).any() else BACKWARD
    ]
    one = (durations[FORWARD] + backward).sum() + 2 * (latency * played.crosses).sum()
    assert span >= one * (1 - 1e-12)


@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(0, 99), st.floats(0, 3))
def test_monotone_in_every_duration_and_latency(
    seed: int, kind: int, stage: int, more: float
) -> None:
    played, durations, latency, _ = case(seed)
    before = ends.ends(played, durations, latency)
    longer = durations.copy()
    longer[kind, stage % played.stages] += more
    assert (ends.ends(played, longer, latency) >= before).all()
    assert (ends.ends(played, durations, latency + more) >= before).all()


@given(st.integers(1, 8), st.integers(1, 16), st.integers(1, 9), st.integers(1, 9))
def test_equal_stages_give_the_textbook_bubble(p: int, m: int, f: int, b: int) -> None:
    durations = np.zeros((4, p))
    durations[FORWARD], durations[BACKWARD] = f, b
    for name in ("gpipe", "1f1b"):
        span = float(ends.makespan(script(name, p, m), durations))
        assert span == (m + p - 1) * (f + b)
        assert 1 - m * (f + b) / span == pytest.approx((p - 1) / (m + p - 1))


@given(st.integers(1, 6), st.integers(2, 4), st.integers(1, 4))
def test_chunks_divide_the_bubble(p: int, v: int, turns: int) -> None:
    """Narayanan et al. 2021: m(f+b) + (p-1)(f+b)/v, for v chunks of (f+b)/v each."""
    durations = np.array([[1.0], [2.0], [0.0], [0.0]]).repeat(p * v, axis=1)
    m = p * turns
    assert ends.makespan(script("interleaved", p, m, v), durations) == 3 * (m * v + p - 1)


@given(st.integers(1, 8), st.integers(1, 4))
def test_zero_bubble_waits_less(p: int, rounds: int) -> None:
    """F = I = W = 1 beside B = 2: weight gradients fill a part of the bubble."""
    m = p * rounds
    whole, split = np.zeros((4, p)), np.ones((4, p))
    whole[FORWARD], whole[BACKWARD], split[BACKWARD] = 1, 2, 0
    plain = ends.makespan(script("1f1b", p, m), whole)
    zero = ends.makespan(script("zb-h1", p, m), split)
    assert 3 * m <= zero <= plain
    if p > 1:
        assert zero < plain


@given(st.integers(0, 10_000))
def test_a_receive_that_holds_is_a_longer_action(seed: int) -> None:
    played, durations, latency, _ = case(seed)
    longer = ends.holding(played, durations, latency)
    beside = ends.ends(played, durations, latency)
    held = ends.ends(played, longer)
    assert (held >= beside * (1 - 1e-12)).all()
    hop = np.append(latency * played.crosses, 0.0)
    assert np.allclose(longer[FORWARD] - durations[FORWARD], np.roll(hop, 1))
    assert np.allclose(longer[BACKWARD] - durations[BACKWARD], hop)
    assert np.array_equal(longer[WEIGHT_GRADIENT], durations[WEIGHT_GRADIENT])


def test_latency_counts_between_ranks_only() -> None:
    """Two stages of one rank, as at the turn of a V, send nothing."""
    turned = made([[("F", 0, 0), ("F", 1, 0), ("B", 1, 0), ("B", 0, 0)]], 2, 1)
    assert ends.makespan(compiled(turned), np.ones((4, 2)), 5.0) == 4.0
