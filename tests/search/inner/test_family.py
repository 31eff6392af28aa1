"""Bounds of a family of cuts are never above any of its members, by replaying all of them."""

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import EXACT as SOLVED
from planner.cost.relaxation import least_seconds
from planner.search.inner.chunked import solve_chunked
from planner.search.inner.cut import anything
from planner.search.inner.family import Family, family, family_bound, least_bytes, pipeline_bounds
from tests.search import brute_force
from tests.search.problems import seeds

EXACT = 1 + 1e-9
CHUNKED = ("interleaved", "looped-bfs", "zb-h1", "interleaved-zb", "zbv", "dualpipev")


@given(st.integers(1, 40), st.integers(1, 12))
def test_a_family_holds_every_layer_and_is_nearly_even(layers: int, chunks: int) -> None:
    assume(layers >= chunks)
    members = family(layers, chunks)
    assert len(set(members)) == len(members)
    base = layers // chunks
    for counts in members:
        assert sum(counts) == layers
        assert min(counts) >= 1
        assert max(counts) <= base + 2
        assert min(counts[1:-1], default=base) >= base


def drawn(seed: int, schedule: str) -> tuple[Blocks, Candidates] | None:
    blocks = brute_force.drawn(seed, schedules=("1f1b", schedule), chunks=2, free_stages=True)
    rows = [one for one in brute_force.outer_choices(blocks) if one.schedule not in SOLVED]
    return (blocks, rows[seed % len(rows)]) if rows else None


def check(seed: int, schedule: str, share: float) -> None:
    found = drawn(seed, schedule)
    if found is None:
        reject()
    blocks, one = found
    played, variants = brute_force.play(blocks, one), Family.of(blocks, one)
    places = {plan: i for i, plan in enumerate(played.choices)}
    named = zip(variants.cuts, variants.mode, variants.again, strict=True)
    at = np.array([places[plan] for plan in named])
    assert len(at) == len(places)
    steps, peaks = played.step_seconds[at], played.peak_bytes[at]
    assert (pipeline_bounds(blocks, one, variants)[0] <= steps * EXACT).all()
    same = one.take(np.zeros(len(at), dtype=np.int64))
    assert (least_bytes(blocks, same, variants, np.arange(len(at))) <= peaks * EXACT).all()
    limit = float(np.quantile(peaks, share)) * EXACT
    best = float(steps[peaks <= limit].min())
    pipeline = family_bound(blocks, one, limit, np.array([best * EXACT]), anything)
    assert least_seconds(blocks, one, pipeline)[0] <= best * EXACT
    solved = solve_chunked(blocks, one, limit, np.inf)
    assert solved.best is not None
    assert solved.best.step_seconds == pytest.approx(best, rel=1e-9)
    assert solve_chunked(blocks, one, limit, best).best is None


@settings(max_examples=12)
@given(seeds, st.sampled_from(CHUNKED), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_member_is_below_its_bounds(seed: int, schedule: str, share: float) -> None:
    check(seed, schedule, share)


@pytest.mark.slow
@settings(max_examples=300)
@given(seeds, st.sampled_from(CHUNKED), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_member_is_below_its_bounds_in_many_cases(
    seed: int, schedule: str, share: float
) -> None:
    check(seed, schedule, share)


def test_gradients_of_weights_need_no_one_to_wait() -> None:
    """One microbatch under zb-h1: stage 0 ends before the others' weight gradients, so the sum of
    all stages is no bound (it was thought to be one)."""
    check(20_000, "zb-h1", share=0.0)


def test_the_fullest_rank_may_be_the_first_that_works() -> None:
    """Interleaved: the idle time of the mean rank is not added to the fullest rank's work."""
    check(11_400, "interleaved", share=1.0)
