"""Laws of scripts: levels come after what they wait for, and deadlocks are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedule.action import BACKWARD, WEIGHT_GRADIENT
from planner.simulator import ends
from planner.simulator.script import NONE, DeadlockError, compiled, script
from tests.simulator.orders import made
from tests.simulator.test_ends import drawn

seeds = st.integers(0, 10_000)


@given(seeds)
def test_every_action_stands_once_behind_what_it_waits_for(seed: int) -> None:
    played = drawn(np.random.default_rng(seed))
    assert sorted(played.place.tolist()) == list(range(1, len(played) + 1))
    assert np.array_equal(played.place[played.numbers], np.arange(1, len(played) + 1))
    level = np.zeros(len(played) + 1, np.int64)
    level[1:] = np.searchsorted(played.cuts, np.arange(1, len(played) + 1), side="right")
    for waits in (played.previous, played.remote):
        assert (level[waits] < level[1:]).all()


@given(seeds)
def test_a_level_is_when_an_action_starts_if_all_last_one(seed: int) -> None:
    played = drawn(np.random.default_rng(seed))
    found = ends.ends(played, np.ones((4, played.stages)))
    level = np.searchsorted(played.cuts, played.place, side="right")
    assert np.array_equal(found, level.astype(float))


def test_what_actions_wait_for() -> None:
    """1F1B of two stages and two microbatches, in full."""
    played = script("1f1b", 2, 2)
    names = [
        f"{s}{'FBIW'[k]}{m}"
        for k, s, m in zip(
            played.orders.kind, played.orders.stage, played.orders.microbatch, strict=True
        )
    ]
    at = dict(zip(played.place.tolist(), names, strict=True)) | {NONE: ""}
    found = {at[i + 1]: at[int(before)] for i, before in enumerate(played.remote)}
    assert found == {
        "0F0": "", "0F1": "", "0B0": "1B0", "0B1": "1B1",
        "1F0": "0F0", "1F1": "0F1", "1B0": "1F0", "1B1": "1F1",
    }  # fmt: skip


def test_weight_gradients_wait_for_their_own_input_gradient() -> None:
    played = script("zb-h1", 3, 3)
    kind, stage = played.orders.kind[played.numbers], played.orders.stage[played.numbers]
    own = np.flatnonzero(kind == 3)
    waited = played.remote[own] - 1
    assert (kind[waited] == 2).all()
    assert np.array_equal(stage[waited], stage[own])


def test_orders_that_wait_for_each_other_are_a_deadlock() -> None:
    crossed = made(
        [[("F", 0, 0), ("B", 0, 0), ("F", 0, 1), ("B", 0, 1)],
         [("F", 1, 1), ("B", 1, 1), ("F", 1, 0), ("B", 1, 0)]], 1, 2,
    )  # fmt: skip
    with pytest.raises(DeadlockError, match="7 of 8 actions"):
        compiled(crossed)


def test_the_last_backward_of_every_stage() -> None:
    for asked in (("gpipe", 3, 4), ("interleaved", 2, 4, 2), ("zb-h1", 3, 3), ("zbv", 2, 4, 2)):
        played = script(*asked)
        made = played.orders
        found = ends.ends(played, np.ones((4, played.stages)))
        last = found[played.numbers[played.finals - 1]]
        for stage in range(played.stages):
            back = (made.stage == stage) & np.isin(made.kind, (BACKWARD, WEIGHT_GRADIENT))
            assert last[stage] == found[back].max()
