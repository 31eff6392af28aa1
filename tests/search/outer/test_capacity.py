"""Capacity: necessary for every plan there is, and sufficient for 1f1b of layers of one kind."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.pipeline import ends_in_flight, in_flight
from planner.schedule import orders
from planner.schedule.orders import V_SHAPED
from planner.search.outer.capacity import can_hold, most_that_fit
from planner.search.outer.relaxed_space import relaxed_space
from planner.search.outer.search import Search
from planner.search.outer.terms import Terms
from planner.spec.runtime import SCHEDULES
from tests.examples import blocks, gpu_cluster, llama_like
from tests.search import brute_force

CHUNKED = ("1f1b", "interleaved", "looped-bfs", "zbv")


def holds(asked: Blocks, one: Candidates, limit: float) -> bool:
    """As the search asks: with the bytes of 1f1b, whatever the schedule."""
    v_shaped = one.schedule in V_SHAPED
    plain = dataclasses.replace(one, schedule="1f1b", vpp=1)
    return bool(can_hold(asked, plain, limit, v_shaped)[0])


def check(seed: int, **fixed: object) -> int:
    """Every plan of a question within its own peak, and how many were exact."""
    asked, exact = brute_force.drawn(seed, **fixed), 0
    for one in brute_force.outer_choices(asked):
        if one.pp == 1:
            continue
        peaks = brute_force.play(asked, one).peak_bytes
        least = float(peaks.min()) * (1 + 1e-9)
        assert holds(asked, one, least), one.layout(0)
        if one.schedule == "1f1b" and _of_own_choice(asked):
            assert not holds(asked, one, 0.999 * least), one.layout(0)
            exact += 1
    return exact


def _of_own_choice(asked: Blocks) -> bool:
    """Whether every rank chooses alone how many layers, all alike, it holds and makes again."""
    own = asked.runtime.recompute_layers == "any" or asked.runtime.recompute == ("none",)
    return own and asked.runtime.free_stages and len(asked.kinds) == 1


def test_what_a_plan_holds_can_be_held() -> None:
    assert sum(check(seed, recompute_layers="any") for seed in range(6)) > 10


@pytest.mark.parametrize("seed", [3, 7])
def test_chunks_and_v_shapes_hold_no_less(seed: int) -> None:
    check(seed, schedules=CHUNKED, chunks=2, free_stages=True)


@pytest.mark.slow
def test_what_a_plan_holds_can_be_held_in_many_cases() -> None:
    for seed in range(100, 200):
        check(seed)
        check(seed, schedules=CHUNKED, chunks=2, free_stages=True)


@given(
    st.sampled_from([each for each in SCHEDULES if each not in V_SHAPED]),
    st.integers(2, 6),
    st.integers(1, 20),
    st.integers(1, 4),
)
def test_no_order_of_ranks_has_fewer_in_flight_than_1f1b(
    schedule: str, ranks: int, microbatches: int, chunks: int
) -> None:
    chunks = 1 if schedule in orders.ONE_CHUNK else max(2, chunks)
    if orders.problem(schedule, ranks, chunks, microbatches):
        return
    m = np.array([microbatches])
    for count in (in_flight, ends_in_flight):
        usual = count("1f1b", ranks, m)
        assert (count(schedule, ranks, m, chunks)[:, [0, -1]] >= usual[:, [0, -1]] - 1e-9).all()
    middle = in_flight(schedule, ranks, m, chunks) >= in_flight("1f1b", ranks, m) - 1e-9
    assert middle.all()


def test_the_most_that_fit_is_a_bound_of_every_column() -> None:
    asked = blocks(llama_like(layers=8), gpu_cluster(nodes=2))
    made = relaxed_space(asked, Terms(asked.cluster.memory_bytes))
    table = next(each for each in made.tables if each.pp == 4)
    least = [most_that_fit(asked, table, limit) for limit in np.geomspace(1e8, 1e12, 9)]
    assert least == sorted(least)
    assert least[-1] == 8


def test_a_search_that_knows_no_plan_ends_at_the_time_limit_too() -> None:
    asked = blocks(llama_like(layers=8), gpu_cluster(nodes=4))
    made = relaxed_space(asked, Terms(asked.cluster.memory_bytes))
    unknown = dataclasses.replace(made, known=np.inf)
    found = Search(asked, unknown, time_limit_seconds=0.0).run()
    assert found.tally.stopped
    assert not found.solved
    assert found.lower_bound <= Search(asked, made).run().solved[0].value
