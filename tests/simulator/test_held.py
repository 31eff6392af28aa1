"""Laws of memory over time: within the bound, back to the start, and what a schedule keeps."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.estimate import estimate
from planner.schedule import alive
from planner.simulator.held import Curve, StageBytes, curves
from planner.simulator.replay import play, replay
from planner.simulator.script import script
from planner.spec.plan import Plan
from tests.simulator.plans import drawn_plan, question
from tests.simulator.test_replay import one_rank

DRAWN = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
randoms = st.randoms(use_true_random=False)


def held(plan: Plan) -> tuple[list[Curve], StageBytes, np.ndarray]:
    blocks, candidates = question(plan)
    found = estimate(blocks, candidates)
    sizes = StageBytes.of(blocks, candidates, found, 0)
    played = replay(blocks, candidates, found, 0)
    return curves(played, sizes), sizes, found.memory.total[0]


@DRAWN
@given(randoms)
def test_never_above_the_bound_and_empty_in_the_end(random: Random) -> None:
    found, sizes, bound = held(drawn_plan(random))
    for curve, always, most in zip(found, sizes.always, bound, strict=True):
        assert (np.diff(curve.at_seconds) >= -1e-12).all()
        assert curve.held_bytes.min() >= always * (1 - 1e-12)
        assert curve.peak_bytes <= most * (1 + 1e-12)
        assert curve.held_bytes[-1] == pytest.approx(always, rel=1e-9)
        assert curve.peak_bytes == curve.held_bytes.max()


@given(
    st.sampled_from(["gpipe", "1f1b", "zb-h1", "interleaved", "looped-bfs", "zbv", "dualpipev"]),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_equal_chunks_hold_what_is_counted_from_the_orders(name: str, p: int, rounds: int) -> None:
    v = 1 if name in ("gpipe", "1f1b", "zb-h1") else 2
    made = script(name, p, 2 * p * rounds, v)
    count = made.stages
    seconds = one_rank([0.0] * count, [2.0] * count, [1] * count, 0.0)
    sizes = StageBytes(np.zeros(p), np.zeros(p), np.ones(count), np.zeros(count))
    peaks = [curve.peak_bytes for curve in curves(play(made, seconds), sizes)]
    assert peaks == alive.in_flight(made.orders).tolist()


def test_a_split_backward_keeps_its_inputs_until_the_weight_gradient() -> None:
    """ZB-H1 on two ranks, two microbatches: rank 1 puts its first W off behind its second I."""
    made = script("zb-h1", 2, 2)
    seconds = one_rank([0.0] * 2, [2.0] * 2, [1] * 2, 0.0)
    seconds.durations[2:] = 1.0
    ones = np.array([1.0, 1.0])
    sizes = StageBytes(np.array([10.0, 20.0]), 0.5 * ones, ones, 0 * ones)
    second = curves(play(made, seconds), sizes)[1]
    order = made.orders.kind[made.orders.starts[1] :].tolist()
    assert order == [0, 2, 0, 2, 3, 3]
    assert second.held_bytes.tolist() == [
        20.0,
        *(20.0, 21.0),
        *(21.5, 21.0),
        *(21.0, 22.0),
        *(22.5, 22.0),
        *(22.5, 21.0),
        *(21.5, 20.0),
    ]
    assert second.peak_bytes == second.held_bytes[7] == 22.5
    recomputes = curves(play(made, seconds), replace(sizes, left=3 * ones))[1]
    more = second.held_bytes + np.array([0, 0, 0, 0, 3, 3, 3, 3, 6, 6, 3, 3, 0])
    assert recomputes.held_bytes.tolist() == more.tolist()
