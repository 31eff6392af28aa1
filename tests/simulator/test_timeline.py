"""Predicted timelines: what a rank is lowered to do, when it does it."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.schedule import lowering
from planner.schedule.action import Action, Kind
from planner.schedule.check import send_of
from planner.simulator.prediction import predict
from planner.simulator.timeline import timeline
from planner.spec.runtime import SCHEDULES
from tests.simulator.plans import drawn_plan, question

DRAWN = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
randoms = st.randoms(use_true_random=False)


@DRAWN
@given(randoms, st.sampled_from(SCHEDULES), st.booleans())
def test_spans_are_the_lowered_actions_in_order(random: Random, schedule: str, cpu: bool) -> None:
    plan = drawn_plan(random, schedule=schedule, cpu=cpu)
    blocks, _ = question(plan)
    found = timeline(blocks, plan)
    layout = plan.layout
    grid = lowering.lower(layout.schedule, layout.pp, plan.microbatches, layout.vpp)
    shown = sorted({span.rank for span in found.spans})
    assert len(shown) == layout.devices
    for rank in shown:
        own = [span for span in found.spans if span.rank == rank]
        order = grid[layout.coordinates(rank)["pp"]]
        assert [span.name for span in own] == [str(action) for action in order]
    ends = [span.end_seconds for span in found.spans]
    assert max(ends) <= found.step_seconds * (1 + 1e-9)


@DRAWN
@given(randoms)
def test_messages_arrive_after_they_were_sent(random: Random) -> None:
    plan = drawn_plan(random)
    blocks, _ = question(plan)
    found = timeline(blocks, plan)
    ends = {Action.parse(span.name): span.end_seconds for span in found.spans}
    for span in found.spans:
        sent = send_of(Action.parse(span.name))
        if sent is not None:
            assert span.start_seconds >= ends[sent] - 1e-12


@DRAWN
@given(randoms)
def test_the_prediction_is_the_timelines_step(random: Random) -> None:
    plan = drawn_plan(random)
    blocks, _ = question(plan)
    promised, found = predict(blocks, plan), timeline(blocks, plan)
    assert promised.step_seconds == found.step_seconds
    assert sum(promised.breakdown.values()) == pytest.approx(found.step_seconds)
    last = max(s.end_seconds for s in found.spans if Action.parse(s.name).kind == Kind.OPTIMIZER)
    assert last + plan.runtime.step_seconds == pytest.approx(found.step_seconds)
    for rank, peak in found.peak_bytes.items():
        curve = [point.held_bytes for point in found.memory if point.rank == rank]
        assert max(curve) <= peak * (1 + 1e-12)
