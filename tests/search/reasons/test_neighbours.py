"""Neighbours along every axis against every plan there is, and the search behind them."""

import numpy as np
import pytest

from planner.cost.blocks import Blocks
from planner.search.exact import rank_exactly
from planner.search.ranking import NoPlanError
from planner.search.reasons.neighbours import (
    BESIDE,
    MESH,
    RECOMPUTE,
    SLOWEST,
    Neighbour,
    neighbours,
)
from planner.spec.layout import Layout
from planner.spec.plan import Plan
from tests.search import brute_force

Every = list[tuple[Layout, float]]


def every_plan(blocks: Blocks, limit: float) -> Every:
    """Layouts and steps of all plans within a limit."""
    found: Every = []
    for one in brute_force.outer_choices(blocks):
        played = brute_force.play(blocks, one)
        layout = one.layout(0)
        for (_, mode, again), step, peak in zip(
            played.choices, played.step_seconds, played.peak_bytes, strict=True
        ):
            if peak <= limit:
                kept = mode if any(again) else "none"
                found.append((layout.replace(recompute=kept), float(step)))
    return found


def differs(other: Layout, own: Layout, axis: str) -> bool:
    same = all(getattr(other, name) == getattr(own, name) for name in MESH)
    if axis in MESH or axis in ("micro_batch", "sync", RECOMPUTE):
        kept = axis in MESH or same
        return kept and getattr(other, axis) != getattr(own, axis)
    if axis == "zero":
        return same and (other.zero, other.shard) != (own.zero, own.shard)
    if axis == "schedule":
        return same and (other.schedule, other.vpp) != (own.schedule, own.vpp)
    if axis == "placement":
        return same and other.axis_order != own.axis_order
    return same and own.cp > 1 and other.cp_style != own.cp_style


def check(seed: int, share: float) -> int:
    blocks = brute_force.drawn(seed)
    everything = every_plan(blocks, np.inf)
    if not everything:
        return 0
    peaks = [p for one in brute_force.outer_choices(blocks) for p in _peaks(blocks, one)]
    limit = float(np.quantile(peaks, share)) * (1 + 1e-9)
    small = brute_force.with_memory(blocks, limit)
    try:
        ranked = rank_exactly(small, allow_at_risk=True)
    except NoPlanError:
        return 0
    assert ranked.space is not None
    best, plans = ranked.plans[0], every_plan(small, limit)
    near = {each.axis: each for each in neighbours(small, ranked.space, best)}
    for axis in (*MESH, *BESIDE, RECOMPUTE):
        _compare(best, plans, axis, near.get(axis))
    return len(near)


def _peaks(blocks: Blocks, one) -> list[float]:  # type: ignore[no-untyped-def]
    return list(brute_force.play(blocks, one).peak_bytes)


def _compare(best: Plan, plans: Every, axis: str, near: Neighbour | None) -> None:
    assert best.predicted is not None
    value = best.predicted.step_seconds
    others = [step for layout, step in plans if differs(layout, best.layout, axis)]
    least = min(others, default=np.inf) / value - 1
    if least < SLOWEST - 1 - 1e-5:
        assert near is not None, axis
        assert near.loss is not None, axis
        assert near.least_loss is not None
        assert near.least_loss <= least + 1e-8
        assert near.loss >= least - 1e-8
        assert not near.proven or near.loss == pytest.approx(least, abs=1e-8)
        assert near.plan is not None
        assert differs(near.plan.layout, best.layout, axis)
    elif not others and near is not None:
        assert near.plan is None
        assert near.over_bytes is not None
        assert near.over_bytes > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_no_plan_of_an_axis_is_better_than_its_neighbour(seed: int, share: float) -> None:
    check(seed, share)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_no_plan_of_an_axis_is_better_than_its_neighbour_in_many_cases(share: float) -> None:
    assert sum(check(seed, share) for seed in range(100, 160)) > 50


def test_neighbours_that_were_not_all_solved_say_by_how_much_they_may_be_better() -> None:
    blocks = brute_force.drawn(1)
    ranked = rank_exactly(blocks, allow_at_risk=True)
    assert ranked.space is not None
    best = ranked.plans[0]
    full = {each.axis: each for each in neighbours(blocks, ranked.space, best)}
    some = {each.axis: each for each in neighbours(blocks, ranked.space, best, tries=2)}
    for axis, each in some.items():
        if each.loss is None:
            continue
        whole = full[axis]
        assert whole.loss is not None
        assert each.least_loss is not None
        assert each.least_loss <= whole.loss + 1e-9 <= each.loss + 2e-9
        if not each.proven:
            assert "at least" in each.reason
