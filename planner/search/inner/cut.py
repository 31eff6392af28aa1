"""Inner search: for one outer choice, the cut into stages and the layers that recompute.

Schedules of one chunk per rank (gpipe, 1f1b): exact. The ways to recompute that the runtime has
are tried one after the other,

    all     no layer recomputes, or all do
    same    the same number k of every stage: first with the fewest that fit each stage (a bound
            for every k), then k = 0 .. N as long as their bound is below the incumbent
    any     the fewest that fit each stage; where the user wants layers to recompute, at least one
            of stage 0, of stage 1, ..

and each is one problem for planner.search.inner.labels, whose plan is replayed. Where the replay is
longer than the bound planner.search.inner.branch looks for a better cut; what its node limit leaves
stays open (`open_seconds`, the least such bound).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.stage_split import usual_counts
from planner.search.inner.branch import branch
from planner.search.inner.completion import balanced, tables_below
from planner.search.inner.labels import minimise
from planner.search.inner.problem import RELATIVE, Counts, Problem
from planner.search.inner.stage_tables import StageTables, Way, modes, stage_tables
from planner.search.inner.static_order import step_seconds
from planner.spec.runtime import Recompute


@dataclass(frozen=True, slots=True)
class Cut:
    """A plan of one outer choice: layers of every stage (chunk), and how many of them recompute."""

    step_seconds: float
    counts: Counts
    mode: Recompute
    recomputed: Counts


@dataclass(slots=True)
class Found:
    """The best cut below the bound that was asked for (None: there is none), what stayed open, and
    how many cuts were replayed, labels kept and nodes of branch and bound bounded."""

    best: Cut | None = None
    open_seconds: float = np.inf
    replayed: int = 0
    labels: int = 0
    nodes: int = 0

    def below(self, upper: float) -> float:
        """The bound for whatever is tried next."""
        return upper if self.best is None else min(upper, self.best.step_seconds)


Allows = Callable[[Recompute], bool]
"""Whether the user lets layers recompute so."""


def anything(mode: Recompute) -> bool:
    """No wish."""
    return True


class Inner:
    """Solves the outer choices of one table, `limit_bytes` of memory per rank.

    Stages are tabulated for all of them at once, the first time that one is solved.
    """

    def __init__(
        self,
        blocks: Blocks,
        choices: Candidates,
        limit_bytes: float,
        allows: Allows = anything,
    ):
        self.blocks, self.choices, self.limit = blocks, choices, limit_bytes
        self.allows = allows
        self._tabulated: dict[tuple[Way, int], StageTables] = {}

    def solve(self, row: int, upper: float, most: int) -> Found:
        """The best cut of one row below `upper` seconds; stages hold at most `most` layers."""
        found = Found()
        for way in self._ways(row, upper, most, found):
            self._try(way, row, upper, most, found)
        return found

    def first(self, row: int) -> Found:
        """A good cut at little cost: the balanced ones with no layer and all layers recomputing."""
        found, layers = Found(), self.blocks.model.layers
        most = min(layers, 2 * -(-layers // self.choices.pp) + 2)
        for mode in modes(self.blocks.runtime):
            if self.allows(mode):
                tables, at = self._tables(Way(mode, 0 if mode == "none" else layers), row, most)
                problem = tables.problem(at, layers)
                free = self.blocks.runtime.free_stages
                counts = balanced(tables_below(problem, np.inf)) if free else self._usual()
                self._keep(tables, at, problem, counts, np.inf, found)
        return found

    def _ways(self, row: int, upper: float, most: int, found: Found) -> Iterator[Way]:
        rule = self.blocks.runtime.recompute_layers
        layers = self.blocks.model.layers
        if self.allows("none"):
            yield Way("none", 0)
        for mode in modes(self.blocks.runtime):
            if mode == "none" or not self.allows(mode):
                continue
            if rule == "all":
                yield Way(mode, layers)
            elif rule == "any":
                yield from self._any(mode)
            else:
                yield from self._same(mode, row, upper, most, found)

    def _any(self, mode: Recompute) -> Iterator[Way]:
        """The fewest that fit; where some layer must recompute, of each stage in turn one."""
        if self.allows("none"):
            yield Way(mode, None)
        else:
            yield from (Way(mode, None, forced=i) for i in range(self.choices.pp))

    def _same(
        self, mode: Recompute, row: int, upper: float, most: int, found: Found
    ) -> Iterator[Way]:
        """Numbers k that every stage may recompute, as long as one may be below the incumbent."""
        tables, at = self._tables(Way(mode, None), row, most)
        problem = tables.problem(at, self.blocks.model.layers)
        least = minimise(problem, found.below(upper))
        if least.counts is None:
            return
        first = max(*tables.recomputed(at, least.counts), 0 if self.allows("none") else 1)
        yield Way(mode, first)
        yield from (Way(mode, k) for k in range(1, most + 1) if k != first)

    def _tables(self, way: Way, row: int, most: int) -> tuple[StageTables, int]:
        """Tables that hold a row, and its place in them: all rows for the ways that every solution
        begins with, the row alone for those that few come to."""
        if way.layers not in (None, 0, self.blocks.model.layers):
            one = self.choices.take(np.array([row]))
            return stage_tables(self.blocks, one, way, self.limit, most), 0
        if (way, most) not in self._tabulated:
            made = stage_tables(self.blocks, self.choices, way, self.limit, most)
            self._tabulated[way, most] = made
        return self._tabulated[way, most], row

    def _try(self, way: Way, row: int, upper: float, most: int, found: Found) -> None:
        tables, at = self._tables(way, row, most)
        problem = tables.problem(at, self.blocks.model.layers)
        if not self.blocks.runtime.free_stages:
            self._keep(tables, at, problem, self._usual(), upper, found)
            return
        if problem.stages == 1:
            self._keep(tables, at, problem, (problem.layers,), upper, found)
            return
        below = found.below(upper)
        if np.isinf(below):
            self._keep(tables, at, problem, balanced(tables_below(problem, below)), upper, found)
            below = found.below(upper)
        least = minimise(problem, below)
        found.labels += least.labels
        if least.counts is None or least.bound_seconds is None:
            return
        step = self._keep(tables, at, problem, least.counts, upper, found)
        if step > least.bound_seconds * (1 + RELATIVE):
            closed = branch(problem, found.below(upper))
            found.nodes += closed.nodes
            self._keep(tables, at, problem, closed.counts, upper, found)
            left = max(closed.open_seconds, least.bound_seconds)
            if np.isfinite(closed.open_seconds):
                found.open_seconds = min(found.open_seconds, left)

    def _usual(self) -> Counts | None:
        """The cut of a runtime that leaves no choice."""
        counts = usual_counts(self.blocks.model, self.blocks.runtime, self.choices.pp)
        return counts if min(counts) > 0 else None

    def _keep(
        self,
        tables: StageTables,
        at: int,
        problem: Problem,
        counts: Counts | None,
        upper: float,
        found: Found,
    ) -> float:
        """Replay a cut and keep it if it is the best so far. Returns its step."""
        if counts is None or max(counts) > problem.most:
            return np.inf
        step = step_seconds(problem, counts)
        found.replayed += 1
        again = tables.recomputed(at, counts)
        if not any(again) and not self.allows("none"):
            return step
        if step < found.below(upper) * (1 - RELATIVE):
            found.best = Cut(step, counts, tables.way.mode if any(again) else "none", again)
        return step
