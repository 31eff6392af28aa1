"""Ranks that share cores and have a network: messages leave the cores to others."""

import dataclasses
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.schedule.action import BACKWARD, FORWARD
from planner.simulator.replay import play, play_on_shared_cores
from planner.simulator.script import script
from planner.simulator.stage_seconds import Messages, StageSeconds
from planner.spec.cluster import SharedCores
from tests.simulator.plans import drawn_plan
from tests.simulator.test_replay import played

DRAWN = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
ENOUGH = SharedCores(cores=99, slowdown=((1, 1.0), (99, 1.0)), network=True)
ONE = SharedCores(cores=1, slowdown=((1, 1.0), (16, 16.0)), network=True)


def with_messages(seconds: StageSeconds, share: float, notice: float = 0.0) -> StageSeconds:
    """The same seconds, a share of all that ranks do being messages."""
    actions, optimizer = share * seconds.durations, share * seconds.optimizer
    messages = Messages(actions, optimizer, np.full(len(seconds.hops), notice))
    return dataclasses.replace(seconds, messages=messages)


@DRAWN
@given(st.randoms(use_true_random=False), st.floats(0, 1))
def test_with_cores_enough_it_does_not_matter_what_is_messages(
    random: Random, share: float
) -> None:
    found, seconds = played(drawn_plan(random, overlaps_dp=False))
    apart = play_on_shared_cores(found.script, with_messages(seconds, share), 1.0, ENOUGH)
    for name in ("starts", "ends", "reduced", "updated", "step_seconds"):
        assert getattr(apart, name) == pytest.approx(getattr(found, name), rel=1e-9, abs=1e-12)


def test_only_computing_slows_down() -> None:
    """Four ranks on one core that compute for 1 s of 3 s, reduce for 5 s and publish for 1 of 2."""
    made = script("1f1b", 1, 1)
    seconds = stages([3.0], [0.0], hop=0.0, reduction=5.0, optimizer=2.0)
    sent = np.zeros((4, 1))
    sent[FORWARD] = 2.0
    messages = Messages(sent, np.array([1.0]), np.zeros(0))
    found = play_on_shared_cores(made, dataclasses.replace(seconds, messages=messages), 4.0, ONE)
    assert found.step_seconds == pytest.approx(4 * 1 + 2 + 5 + 4 * 1 + 1)
    assert found.ends[0] - found.starts[0] == pytest.approx(6.0)


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 3), st.floats(0, 3))
def test_a_message_waits_for_its_receivers_word(
    forward: float, backward: float, hop: float, notice: float
) -> None:
    """Two stages, one microbatch: the last stage calls at once, the first after its forward."""
    made = script("1f1b", 2, 1)
    seconds = stages([forward] * 2, [backward] * 2, hop)
    found = play_on_shared_cores(made, with_messages(seconds, 0.0, notice), 1.0, ENOUGH)
    there = max(forward, notice) + hop
    back = max(there + forward + backward, forward + notice) + hop
    assert found.step_seconds == pytest.approx(back + backward)


def test_links_differ() -> None:
    """gpipe over three stages and two links, alone and on shared cores."""
    made = script("gpipe", 3, 1)
    seconds = stages([1.0] * 3, [1.0] * 3, hop=0.0)
    seconds = dataclasses.replace(seconds, hops=np.array([2.0, 5.0]))
    for found in (play(made, seconds), play_on_shared_cores(made, seconds, 1.0, ENOUGH)):
        assert found.step_seconds == pytest.approx(6 + 2 * (2 + 5))
        assert sorted(found.hop.tolist()) == [0, 0, 2, 2, 5, 5]


def stages(
    forward: list[float],
    backward: list[float],
    hop: float,
    reduction: float = 0.0,
    optimizer: float = 0.0,
) -> StageSeconds:
    count = len(forward)
    durations = np.zeros((4, count))
    durations[FORWARD], durations[BACKWARD] = forward, backward
    return StageSeconds(
        durations=durations,
        hops=np.full(count - 1, hop),
        holds=True,
        reduction=np.full(count, reduction),
        exposed=np.full(count, reduction),
        layers=np.ones(count),
        overlaps=False,
        slowdown=0.0,
        optimizer=np.full(count, optimizer),
        step=0.0,
    )
