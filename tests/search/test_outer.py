"""The outer search against brute force: the same optimum, or none, over every plan there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.blocks import Blocks
from planner.search.exact import rank_exactly
from planner.search.problem import RELATIVE
from planner.search.ranking import NoPlanError
from tests.search import brute_force
from tests.search.problems import seeds

SHARES = st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0])


def check(blocks: Blocks, share: float) -> None:
    """share: 0: too little memory for any plan; 1: enough for all."""
    played = [brute_force.play(blocks, one) for one in brute_force.outer_choices(blocks)]
    if not played:
        with pytest.raises(NoPlanError, match="no legal way"):
            rank_exactly(blocks, allow_at_risk=True)
        return
    steps = np.concatenate([each.step_seconds for each in played])
    peaks = np.concatenate([each.peak_bytes for each in played])
    limit = float(np.quantile(peaks, share)) * (1 + 1e-12) if share else float(peaks.min()) * 0.999
    asked = brute_force.with_memory(blocks, limit)
    fits = peaks <= limit
    if not fits.any():
        with pytest.raises(NoPlanError, match="device memory is the limit"):
            rank_exactly(asked, allow_at_risk=True)
        return
    best = float(steps[fits].min())
    found = rank_exactly(asked, allow_at_risk=True)
    plan = found.plans[0]
    assert plan.predicted is not None
    assert found.outcome is not None
    assert plan.predicted.fits
    assert plan.predicted.step_seconds == pytest.approx(best, rel=RELATIVE)
    assert found.outcome.solved[0].value == pytest.approx(best, rel=RELATIVE)
    assert found.lower_bound_seconds is not None
    assert found.lower_bound_seconds <= best * (1 + RELATIVE)
    for solved, made in zip(found.outcome.solved, found.plans, strict=False):
        assert made.predicted is not None
        assert made.predicted.step_seconds == pytest.approx(solved.value, rel=RELATIVE)
        assert made.predicted.peak_bytes <= limit


@pytest.mark.slow
@settings(max_examples=3)
@given(seeds, SHARES)
def test_the_search_finds_the_best_of_all_plans(seed: int, share: float) -> None:
    check(brute_force.drawn(seed, zero_stages=(0, 1)), share)


@pytest.mark.slow
@settings(max_examples=150)
@given(seeds, SHARES)
def test_the_search_finds_the_best_of_all_plans_of_every_runtime(seed: int, share: float) -> None:
    check(brute_force.drawn(seed), share)


CHUNKED = {
    "schedules": ("interleaved", "looped-bfs", "interleaved-zb", "zbv"),
    "chunks": 3,
    "zero_stages": (0, 1),
}


@pytest.mark.slow
@settings(max_examples=2)
@given(seeds, SHARES)
def test_chunked_schedules_are_searched_in_their_family(seed: int, share: float) -> None:
    check(brute_force.drawn(seed, **CHUNKED), share)


@pytest.mark.slow
@settings(max_examples=60)
@given(seeds, SHARES)
def test_chunked_schedules_in_many_cases(seed: int, share: float) -> None:
    check(brute_force.drawn(seed, **(CHUNKED | {"zero_stages": (0, 1, 2, 3)})), share)
