"""Front: plans of which none is better in step time, in memory left free and in cost at once.

    minimise   ( step seconds,  peak bytes,  dollars per step )

by epsilon constraints. For every number of devices (numbers of nodes that divide the cluster's)
dollars and seconds are proportional, so what is left is the least step under a memory limit. Limits
are multiples of STEP of a device's memory: beginning with what the question allows, each search
gives the fastest plan of a limit L with its peak P <= L; every limit in [P, L] has the same fastest
plan, so the next one is the largest multiple below P, until nothing fits. Points that another one
beats or equals in all three are dropped.

Claim: for every such number of devices and every such limit no plan within the limit is faster
than the front's point (within `gap`; chunked schedules: within their family of cuts). Between two
limits there may be plans with a few bytes less than a point.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.cost.blocks import Blocks
from planner.search.outer.relaxed_space import Space, relaxed_space
from planner.search.outer.search import Outcome, Search
from planner.search.outer.terms import Terms
from planner.search.solved_plan import plan_of
from planner.search.wishes import Wishes
from planner.spec.divisors import divisors
from planner.spec.plan import Plan, Prediction
from planner.spec.units import format_bytes, format_seconds

STEP = 0.05
"""Chosen: of a device's memory, the distance of two limits."""
SEEDS = 8
"""Solved plans that are looked at for a first one under the next limit."""


@dataclass(frozen=True, slots=True)
class Point:
    """A plan of the front. dollars: of a step; device-seconds where the device has no price."""

    plan: Plan
    limit_bytes: float
    dollars: float

    @property
    def predicted(self) -> Prediction:
        """Its prediction."""
        assert self.plan.predicted is not None
        return self.plan.predicted

    @property
    def values(self) -> tuple[float, float, float]:
        """What is minimised."""
        return self.predicted.step_seconds, self.predicted.peak_bytes, self.dollars


@dataclass(frozen=True, slots=True)
class Front:
    """points: fastest first. sizes: numbers of devices; searches: how many; gap: the largest."""

    points: tuple[Point, ...]
    sizes: tuple[int, ...]
    searches: int
    gap: float
    priced: bool

    @property
    def claim(self) -> str:
        """To what the proof refers."""
        sizes = ", ".join(map(str, self.sizes))
        proof = "no plan is faster" if not self.gap else f"no plan is faster by {self.gap:.2%}"
        return (
            f"for {sizes} devices and every memory limit in steps of {STEP:.0%} of a device "
            f"{proof} (chunked schedules: of nearly even chunks); {self.searches} searches"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row per point for people."""
        return [self._row(point) for point in self.points]

    def _row(self, point: Point) -> dict[str, Any]:
        promised, tokens = point.predicted, point.plan.workload.tokens
        free = promised.capacity_bytes - promised.peak_bytes
        cost = "$ per million tokens" if self.priced else "device seconds per million tokens"
        return {
            "devices": point.plan.layout.devices,
            "step": format_seconds(promised.step_seconds),
            "tokens/s": f"{tokens / promised.step_seconds:,.0f}",
            "peak memory": format_bytes(promised.peak_bytes),
            "left free": f"{free / promised.capacity_bytes:.0%}",
            cost: f"{point.dollars / tokens * 1e6:.4g}",
            "plan": point.plan.title,
        }

    def json(self) -> dict[str, Any]:
        """The `pareto/1` value."""
        return {
            "schema": "pareto/1",
            "claim": self.claim,
            "gap": self.gap,
            "sizes": list(self.sizes),
            "searches": self.searches,
            "front": [
                {
                    "devices": point.plan.layout.devices,
                    "step_seconds": point.predicted.step_seconds,
                    "peak_bytes": point.predicted.peak_bytes,
                    "headroom_bytes": point.predicted.capacity_bytes - point.predicted.peak_bytes,
                    "usd_per_step": point.predicted.usd_per_step,
                    "limit_bytes": point.limit_bytes,
                    "plan": point.plan.title,
                    "layout": point.plan.layout.model_dump(mode="json"),
                }
                for point in self.points
            ],
        }


def front(blocks: Blocks, limit_bytes: float, wishes: Wishes) -> Front:
    """The front of a question. limit_bytes: the most that a plan may use of a device."""
    cluster = blocks.cluster
    sizes = tuple(cluster.devices_per_node * n for n in divisors(cluster.nodes))
    points: list[Point] = []
    outcomes: list[Outcome] = []
    for devices in sizes:
        found = _of_size(blocks, Terms(limit_bytes, wishes=wishes, sizes=(devices,)), outcomes)
        points += found
    kept = [point for point in points if not any(_beats(other, point) for other in points)]
    gap = max((each.gap for each in outcomes), default=0.0)
    priced = cluster.accelerator.price_usd_per_hour is not None
    ordered = tuple(sorted(kept, key=lambda point: point.values))
    return Front(ordered, sizes, len(outcomes), gap, priced)


def _of_size(blocks: Blocks, terms: Terms, outcomes: list[Outcome]) -> list[Point]:
    """The fastest plan of every limit, the widest limit first."""
    space = relaxed_space(blocks, terms, kept=np.inf)
    grid = STEP * blocks.cluster.memory_bytes
    points: list[Point] = []
    limit, known = terms.limit_bytes, np.inf
    while limit > 0:
        some = replace(space.within(limit), known=known)
        search = Search(blocks, some)
        outcomes.append(search.run())
        solved = outcomes[-1].solved
        if not solved:
            break
        asked = terms.wishes.asked("time", limit)
        plan = plan_of(blocks, solved[0], asked)
        assert plan.predicted is not None
        points.append(Point(plan, limit, _dollars(plan)))
        limit = grid * (np.ceil(plan.predicted.peak_bytes / grid) - 1)
        known = _known(blocks, some, outcomes[-1], limit)
        space = replace(some, bound=search.lasting)
    return points


def _known(blocks: Blocks, space: Space, outcome: Outcome, limit: float) -> float:
    """The value of a plan under the next limit, of those solved already."""
    for solved in outcome.solved[1 : 1 + SEEDS]:
        plan = plan_of(blocks, solved)
        assert plan.predicted is not None
        if plan.predicted.peak_bytes <= limit:
            return space.terms.value(plan)
    return float("inf")


def _dollars(plan: Plan) -> float:
    assert plan.predicted is not None
    price = plan.predicted.usd_per_step
    return plan.predicted.step_seconds * plan.layout.devices if price is None else price


def _beats(one: Point, other: Point) -> bool:
    """Whether a point is nowhere worse and somewhere better; of equals the first one stays."""
    pairs = list(zip(one.values, other.values, strict=True))
    if one is other or any(a > b * (1 + 1e-9) for a, b in pairs):
        return False
    return any(a < b * (1 - 1e-9) for a, b in pairs)
