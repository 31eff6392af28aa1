"""Laws of replayed plans, of every schedule, trait and recompute mode."""

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.estimate import EXACT, estimate
from planner.cost.overlap import exposed
from planner.schedule.action import BACKWARD, FORWARD, WEIGHT_GRADIENT
from planner.schedule.orders import rank_of_stage
from planner.simulator import streams
from planner.simulator.replay import Replay, play, play_on_shared_cores, replay
from planner.simulator.script import script
from planner.simulator.stage_seconds import StageSeconds
from planner.spec.cluster import SharedCores
from planner.spec.plan import Plan
from tests.simulator.plans import drawn_plan, question

DRAWN = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
randoms = st.randoms(use_true_random=False)
SLACK = 1 + 1e-9


def played(plan: Plan) -> tuple[Replay, StageSeconds]:
    blocks, candidates = question(plan)
    estimates = estimate(blocks, candidates)
    found = replay(blocks, candidates, estimates, 0)
    return found, StageSeconds.of(blocks, candidates, estimates, 0)


@DRAWN
@given(randoms)
def test_the_bound_never_exceeds_the_replay(random: Random) -> None:
    plan = drawn_plan(random)
    blocks, candidates = question(plan)
    found = estimate(blocks, candidates)
    assert found.bound_seconds[0] <= replay(blocks, candidates, found, 0).step_seconds * SLACK


@DRAWN
@given(randoms, st.sampled_from(EXACT))
def test_the_closed_forms_enclose_the_replay(random: Random, schedule: str) -> None:
    """They are the replay where no stage but the first could end the step."""
    plan = drawn_plan(random, schedule=schedule)
    blocks, candidates = question(plan)
    found = estimate(blocks, candidates)
    step = replay(blocks, candidates, found, 0).step_seconds
    assert found.bound_seconds[0] <= step * SLACK
    assert step <= found.step_seconds[0] * SLACK
    if not found.times.reduce[0, 1:].any():
        assert found.step_seconds[0] == pytest.approx(step, rel=1e-9)


@DRAWN
@given(randoms)
def test_at_least_every_ranks_work_and_its_reductions(random: Random) -> None:
    plan = drawn_plan(random, overlaps_dp=False)
    found, seconds = played(plan)
    made = found.script.orders
    for rank in range(made.ranks):
        own = slice(made.starts[rank], made.starts[rank + 1])
        stages = made.rank_of_stage == rank
        busy = seconds.durations[made.kind[own], made.stage[own]].sum()
        busy += seconds.reduction[stages].sum() + seconds.optimizer[stages].sum()
        assert found.step_seconds >= busy / SLACK


@DRAWN
@given(randoms)
def test_a_ranks_actions_never_overlap_and_messages_come_before(random: Random) -> None:
    found, _ = played(drawn_plan(random))
    made = found.script.orders
    for rank in range(made.ranks):
        own = slice(made.starts[rank], made.starts[rank + 1])
        assert (found.starts[own][1:] >= found.ends[own][:-1] - 1e-12).all()
    waits = found.script.sources != np.arange(len(made))
    assert (found.received - found.hop >= found.ends[found.script.sources] - 1e-12)[waits].all()
    assert (found.starts >= found.received - 1e-12)[waits].all()


@DRAWN
@given(randoms, st.booleans())
def test_with_cores_enough_the_event_engine_says_the_same(random: Random, beside: bool) -> None:
    plan = drawn_plan(random, overlaps_dp=False, overlaps_p2p=beside)
    found, seconds = played(plan)
    enough = SharedCores(cores=99, slowdown=((1, 1.0), (99, 1.0)))
    slow = play_on_shared_cores(found.script, seconds, 1.0, enough)
    for name in ("starts", "ends", "reduced", "updated", "step_seconds"):
        assert getattr(slow, name) == pytest.approx(getattr(found, name), rel=1e-9, abs=1e-12)
    waits = found.script.sources != np.arange(len(found.script))
    assert slow.received[waits] == pytest.approx(found.received[waits], rel=1e-9)


@DRAWN
@given(randoms)
def test_fewer_cores_never_help(random: Random) -> None:
    found, seconds = played(drawn_plan(random, cpu=True, overlaps_dp=False))
    few = SharedCores(cores=1, slowdown=((1, 1.0), (16, 16.0)))
    slow = play_on_shared_cores(found.script, seconds, 1.0, few)
    assert slow.step_seconds >= found.step_seconds / SLACK


@DRAWN
@given(randoms)
def test_longer_actions_never_end_the_step_sooner(random: Random) -> None:
    found, seconds = played(drawn_plan(random))
    more = seconds.durations.copy()
    kind = random.randrange(4)
    more[kind, random.randrange(found.script.stages)] *= random.uniform(1, 3)
    if not seconds.overlaps:
        values = {name: getattr(seconds, name) for name in seconds.__dataclass_fields__}
        longer = StageSeconds(**(values | {"durations": more}))
        assert play(found.script, longer).step_seconds >= found.step_seconds / SLACK


@given(st.floats(0, 5), st.floats(0.1, 5), st.integers(1, 9), st.floats(0, 1))
def test_one_stage_reduces_as_the_closed_form_says(
    reduction: float, backward: float, layers: int, slowdown: float
) -> None:
    seconds = one_rank([reduction], [backward], [layers], slowdown)
    made = play(script("1f1b", 1, 3), seconds)
    left = exposed(reduction, backward, float(layers))
    after = left + slowdown * (reduction - left)
    assert made.step_seconds == pytest.approx(3 * (1 + backward) + after)


@given(st.integers(0, 10_000))
def test_the_dp_stream_takes_buckets_as_they_come(seed: int) -> None:
    """Against a queue of single buckets."""
    random = np.random.default_rng(seed)
    p, v = int(random.integers(1, 4)), int(random.integers(1, 4))
    made = script("interleaved", p, 2 * p, v)
    layers = random.integers(1, 5, p * v)
    seconds = one_rank(random.random(p * v) * 4, random.random(p * v), layers, 0.0)
    found = play(made, seconds)
    for rank in range(p):
        own = np.flatnonzero(made.orders.rank_of_stage == rank)
        last = found.ends[made.numbers[made.finals - 1]]
        clock = 0.0
        for stage in own[np.argsort(last[own], kind="stable")].tolist():
            lasting, count = seconds.durations[BACKWARD, stage], int(layers[stage])
            for bucket in range(1, count + 1):
                ready = last[stage] - lasting * (1 - bucket / count)
                clock = max(clock, ready) + seconds.reduction[stage] / count
            assert found.reduced[stage, 1] == pytest.approx(clock)


def one_rank(
    reduction: list[float], backward: list[float], layers: list[int], slowdown: float
) -> StageSeconds:
    count = len(reduction)
    durations = np.zeros((4, count))
    durations[FORWARD], durations[BACKWARD] = 1.0, backward
    return StageSeconds(
        durations=durations,
        hops=np.zeros(count - 1),
        holds=True,
        reduction=np.array(reduction),
        exposed=np.zeros(count),
        layers=np.array(layers, dtype=np.float64),
        overlaps=True,
        slowdown=slowdown,
        optimizer=np.zeros(count),
        step=0.0,
    )


def test_reductions_of_early_chunks_hide_behind_the_others() -> None:
    """Two chunks on one rank: the second's gradients are complete first, and reduce beside the
    backward of the first one; alone they would take 2 s more."""
    made = script("interleaved", 1, 1, 2)
    seconds = one_rank([0.0, 2.0], [3.0, 3.0], [1, 1], 0.5)
    found = play(made, seconds)
    assert found.reduced[1].tolist() == [5.0, 7.0]
    assert found.step_seconds == 8.0 + 0.5 * 2.0
    assert streams.reductions(made, seconds, found.ends).done.tolist() == [9.0]


def test_a_reduction_in_the_order_holds_its_rank() -> None:
    made = script("interleaved", 1, 1, 2)
    beside = one_rank([0.0, 2.0], [3.0, 3.0], [1, 1], 0.0)
    values = {name: getattr(beside, name) for name in beside.__dataclass_fields__}
    found = play(made, StageSeconds(**(values | {"overlaps": False})))
    assert found.step_seconds == 10.0
    assert found.starts.tolist() == [0.0, 1.0, 2.0, 7.0]


@DRAWN
@given(randoms)
def test_a_split_backward_is_the_whole_one_in_two(random: Random) -> None:
    _, seconds = played(drawn_plan(random))
    whole, inputs, weights = seconds.durations[BACKWARD:]
    assert inputs + weights == pytest.approx(whole)
    assert (weights >= 0).all()
    assert (inputs >= -1e-15).all()


@DRAWN
@given(randoms)
def test_chunks_add_up_to_their_rank(random: Random) -> None:
    """Compute, update and layers of the chunks are the rank's in the estimate."""
    plan = drawn_plan(random, prefetches_parameters=False)
    blocks, candidates = question(plan)
    found = estimate(blocks, candidates)
    seconds = StageSeconds.of(blocks, candidates, found, 0)
    place = np.array(rank_of_stage(plan.layout.schedule, plan.layout.pp, plan.layout.vpp))
    pairs = [
        (seconds.durations[WEIGHT_GRADIENT], found.times.backward_weight[0]),
        (seconds.optimizer, found.times.optimizer[0]),
    ]
    if plan.layout.zero < 2:
        pairs.append((seconds.durations[FORWARD], found.times.forward[0]))
        pairs.append((seconds.durations[BACKWARD], found.times.backward[0]))
    for chunks, whole in pairs:
        assert np.bincount(place, chunks) == pytest.approx(whole, rel=1e-9)
