"""Laws of the host: what launching a layer adds, with and without waiting for the router."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.blocks import BlockCost
from planner.cost.divisions import Division
from planner.cost.host import FORWARD_SHARE
from planner.spec.layout import Layout
from tests.cost.drawn import asked, wide, with_experts
from tests.examples import gpu_cluster, plain_runtime

MIXTURE = with_experts(wide())
SLACK = 1 + 1e-12


def layer(model: Any = MIXTURE, ep: int = 4, seq: int = 1024, **traits: Any) -> BlockCost:
    blocks = asked(model, gpu_cluster(nodes=2), plain_runtime(**traits), seq)
    return blocks.cost(blocks.kinds[0], Division.of(Layout(dp=8, micro_batch=1, ep=ep)))


@given(st.floats(0, 1e-2), st.floats(0, 1e-3))
def test_waiting_for_the_counts_is_never_faster(own: float, each: float) -> None:
    host = {"layer_host_seconds": own, "expert_host_seconds": each}
    ahead, waiting = layer(**host), layer(**host, waits_for_counts=True)
    assert ahead.forward <= waiting.forward * SLACK
    assert ahead.again <= waiting.again * SLACK
    assert ahead.backward == waiting.backward


def test_waiting_costs_nothing_where_the_host_takes_no_time_or_there_are_no_experts() -> None:
    assert layer(waits_for_counts=True).forward == pytest.approx(layer().forward)
    host = {"layer_host_seconds": 1e-2, "expert_host_seconds": 1e-3}
    dense = [layer(wide(), ep=1, **host, waits_for_counts=each) for each in (False, True)]
    assert dense[0] == dense[1]


def test_a_host_that_is_far_slower_sets_the_pace_of_both_parts() -> None:
    """Two experts on the rank."""
    cost = layer(layer_host_seconds=1.0, expert_host_seconds=2.0, waits_for_counts=True)
    assert cost.forward + cost.forward_tp == pytest.approx(5.0 * FORWARD_SHARE, rel=1e-2)
    assert cost.backward + cost.backward_tp == pytest.approx(5.0 * (1 - FORWARD_SHARE), rel=1e-2)
