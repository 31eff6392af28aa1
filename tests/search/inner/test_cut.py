"""Inner problems under a user's wish for recomputation, against every plan that keeps it."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.cost.estimate import EXACT as SOLVED
from planner.search.inner.cut import Inner
from tests.search import brute_force
from tests.search.problems import seeds

WISHES = ({"full"}, {"selective"}, {"selective", "full"}, {"none"}, {"none", "full"})


def check(seed: int, allowed: set[str], share: float, rule: str) -> None:
    blocks = brute_force.drawn(
        seed, free_stages=True, recompute=("none", "selective", "full"), recompute_layers=rule
    )
    rows = [one for one in brute_force.outer_choices(blocks) if one.schedule in SOLVED]
    assume(rows)
    one = rows[seed % len(rows)]
    played = brute_force.play(blocks, one)
    limit = float(np.quantile(played.peak_bytes, share)) * (1 + 1e-9)
    kept = np.array([mode in allowed for _, mode, _ in played.choices])
    fits = kept & (played.peak_bytes <= limit)
    best = float(played.step_seconds[fits].min(initial=np.inf))
    inner = Inner(blocks, one, limit, lambda mode: mode in allowed)
    found = inner.solve(0, np.inf, blocks.model.layers)
    step = np.inf if found.best is None else found.best.step_seconds
    assert step == pytest.approx(best, rel=1e-9)
    if found.best is not None:
        assert found.best.mode in allowed


rules = st.sampled_from(["all", "same", "any", "any"])


@settings(max_examples=20)
@given(seeds, st.sampled_from(WISHES), st.sampled_from([0.05, 0.3, 1.0]), rules)
def test_it_finds_the_best_plan_that_keeps_the_wish(
    seed: int, allowed: set[str], share: float, rule: str
) -> None:
    check(seed, allowed, share, rule)


@pytest.mark.slow
@settings(max_examples=400)
@given(seeds, st.sampled_from(WISHES), st.sampled_from([0.05, 0.3, 1.0]), rules)
def test_it_finds_the_best_plan_that_keeps_the_wish_in_many_cases(
    seed: int, allowed: set[str], share: float, rule: str
) -> None:
    check(seed, allowed, share, rule)
