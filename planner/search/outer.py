"""Outer search: the best plan of the whole space, with a proof.

    1  every outer choice is enumerated (planner.search.space) and relaxed: a lower bound on
       its step and on its peak, whatever its cut (planner.cost.relaxation)
    2  those over the memory limit are set aside
    3  the others are taken in the order of their bound, until the next one is no better than the
       best step so far. Where stages are free a choice is bounded once more, with what fits its
       ranks (planner.search.refined), and goes back to its new place; then it is solved
       (planner.search.inner, planner.search.chunked) against the best step so far

Then no plan of the space is faster under this cost model, but for choices whose inner problem
stayed open or whose schedule is searched in a family: `lower_bound_seconds` is the least of what
is left, and gap = 1 - lower bound / best. Nothing depends on a clock, unless a time limit is asked
for; ties go to the choice that comes first in the space.

Objectives: seconds of a step, or its dollars (then numbers of nodes that divide the cluster's are
choices too, and seconds are weighed by the devices they occupy).
"""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.relaxation import least_bytes, least_seconds
from planner.search import space
from planner.search.chunked import family_bounds, more_recompute, solve_chunked
from planner.search.inner import Allows, Cut, Found, Inner, anything
from planner.search.problem import RELATIVE
from planner.search.refined import at_once, most_layers, refined_bound
from planner.search.space import ONE_CHUNK, divisors

BATCH = 65_536
"""Outer choices relaxed at once: bounds the memory of a search, not its result."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of one table of the space."""

    table: Candidates
    row: int

    @property
    def one(self) -> Candidates:
        """The choice alone."""
        return self.table.take(np.array([self.row]))


@dataclass(frozen=True, slots=True)
class Solved:
    """An outer choice with its best cut. value: seconds, or dollars."""

    choice: Choice
    cut: Cut
    value: float


@dataclass(slots=True)
class Tally:
    """What became of the outer choices.

    enumerated: all; impossible: surely over the memory limit; bounded: bound no better than the
    best step; solved: inner problems; replayed: cuts; family: solved within a family of cuts.
    """

    enumerated: int = 0
    impossible: int = 0
    bounded: int = 0
    solved: int = 0
    replayed: int = 0
    family: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Solved choices, best first; the bound on what is not among them."""

    solved: tuple[Solved, ...]
    lower_bound: float
    gap: float
    tally: Tally


Flags = NDArray[np.bool_]
Filter = Callable[[Candidates], Flags]


@dataclass(frozen=True, slots=True)
class Space:
    """All outer choices, relaxed. value_bound: [n] in seconds or dollars; least_bytes: [n]."""

    tables: list[Candidates]
    owner: Ints
    row: Ints
    bound: Floats
    least_bytes: Floats

    def __len__(self) -> int:
        return len(self.owner)

    def choice(self, place: int) -> Choice:
        """One of them."""
        return Choice(self.tables[int(self.owner[place])], int(self.row[place]))


def weight(blocks: Blocks, table: Candidates, dollars: bool) -> Floats:
    """What one second of each row counts: 1, or the dollars of its devices."""
    if not dollars:
        return np.ones(len(table))
    price = blocks.cluster.accelerator.price_usd_per_hour or 0.0
    devices = table.dp * table.tp * table.cp * table.pp
    result: Floats = devices * price / 3600
    return result


def relaxed_space(
    blocks: Blocks, limit_bytes: float, dollars: bool = False, keep: Filter | None = None
) -> Space:
    """Enumerate and relax. Rows over the limit have an infinite bound."""
    sizes = [blocks.cluster.devices]
    if dollars:
        per_node = blocks.cluster.devices_per_node
        sizes = [per_node * n for n in divisors(blocks.cluster.nodes)]
    tables: list[Candidates] = []
    parts: list[tuple[Ints, Floats, Floats]] = []
    for devices in sizes:
        asked = space.Question(
            blocks.model, blocks.cluster, blocks.workload, blocks.runtime, devices
        )
        for table in space.legal(asked):
            kept = table if keep is None else table.take(np.flatnonzero(keep(table)))
            for start in range(0, len(kept), BATCH):
                part = kept.take(np.arange(start, min(start + BATCH, len(kept))))
                parts.append(_relaxed(blocks, part, limit_bytes, dollars))
                tables.append(part)
    if not tables:
        nothing = np.zeros(0)
        return Space([], np.zeros(0, np.int64), np.zeros(0, np.int64), nothing, nothing)
    rows, bounds, peaks = (np.concatenate(each) for each in zip(*parts, strict=True))
    owner = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return Space(tables, owner, rows, bounds, peaks)


def _relaxed(
    blocks: Blocks, table: Candidates, limit: float, dollars: bool
) -> tuple[Ints, Floats, Floats]:
    peaks = least_bytes(blocks, table)
    bound = np.full(len(table), np.inf)
    possible = np.flatnonzero(peaks <= limit)
    if len(possible):
        some = table.take(possible)
        pipeline: Floats = np.zeros(len(some))
        if some.schedule not in ONE_CHUNK:
            pipeline = family_bounds(blocks, some).min(axis=1)
            pipeline = pipeline + more_recompute(blocks, some, limit)
        bound[possible] = least_seconds(blocks, some, pipeline) * weight(blocks, some, dollars)
    return np.arange(len(table)), bound, peaks


@dataclass(slots=True)
class Search:
    """The third step: solve in the order of the bounds. tries: stop after so many solutions."""

    blocks: Blocks
    space: Space
    limit_bytes: float
    dollars: bool = False
    time_limit_seconds: float | None = None
    allows: Allows = anything
    tries: int | None = None
    upper: float = np.inf
    tally: Tally = field(default_factory=Tally)
    solved: list[Solved] = field(default_factory=list)
    best: float = np.inf
    left: float = np.inf
    bound: Floats = field(default_factory=lambda: np.zeros(0))
    refined: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def run(self) -> Outcome:
        """Solve until the next bound is no better than the best value."""
        begun = time.process_time()
        space, tally = self.space, self.tally
        self.best = self.upper
        tally.enumerated = len(space)
        places = np.flatnonzero(np.isfinite(space.bound))
        tally.impossible = len(space) - len(places)
        self.bound = space.bound.copy()
        self.refined = np.zeros(len(space), dtype=bool)
        queue = [(float(space.bound[place]), int(place)) for place in places]
        heapq.heapify(queue)
        while queue:
            bound, place = heapq.heappop(queue)
            if bound >= self.best * (1 - RELATIVE):
                break
            if self._out_of_time(begun) or (self.tries and len(self.solved) >= self.tries):
                tally.stopped, self.left = True, min(self.left, bound)
                break
            if bound < self.bound[place]:
                heapq.heappush(queue, (float(self.bound[place]), place))
            elif self._refinable(place):
                self._refine(place)
                heapq.heappush(queue, (float(self.bound[place]), place))
            else:
                self._solve(space.choice(place))
        tally.bounded = len(places) - tally.solved
        found = sorted(self.solved, key=lambda each: each.value)
        value = found[0].value if found else np.inf
        lower = min(self.left, value)
        gap = max(0.0, 1 - lower / value) if found else 0.0
        return Outcome(tuple(found), lower, gap if gap > RELATIVE else 0.0, tally)

    def _refinable(self, place: int) -> bool:
        table = self.space.tables[int(self.space.owner[place])]
        free = self.blocks.runtime.free_stages and table.pp > 1 and table.schedule in ONE_CHUNK
        return free and np.isfinite(self.best) and not bool(self.refined[place])

    def _refine(self, place: int) -> None:
        """Bound this choice and the next of its table once more, with what fits their ranks."""
        space, owner = self.space, int(self.space.owner[place])
        table = space.tables[owner]
        alike = np.flatnonzero((space.owner == owner) & ~self.refined & (self.bound < self.best))
        alike = alike[np.argsort(self.bound[alike], kind="stable")]
        some = np.unique(np.append(alike[: at_once(self.blocks, table)], place))
        rows = table.take(space.row[some])
        scale = weight(self.blocks, rows, self.dollars)
        bound = refined_bound(self.blocks, rows, self.limit_bytes, self.best / scale)
        self.bound[some] = np.maximum(self.bound[some], bound * scale)
        self.refined[some] = True

    def _out_of_time(self, begun: float) -> bool:
        limit = self.time_limit_seconds
        return limit is not None and time.process_time() - begun > limit

    def _solve(self, choice: Choice) -> None:
        one = choice.one
        scale = float(weight(self.blocks, one, self.dollars)[0])
        upper = self.best / scale
        if one.schedule in ONE_CHUNK:
            inner = Inner(self.blocks, one, self.limit_bytes, self.allows)
            found = inner.solve(0, upper, self._most(one, upper))
        else:
            found = solve_chunked(self.blocks, one, self.limit_bytes, upper, self.allows)
            self.tally.family += 1
        self._note(choice, found, scale)

    def _note(self, choice: Choice, found: Found, scale: float) -> None:
        self.tally.solved += 1
        self.tally.replayed += found.replayed
        self.left = min(self.left, found.open_seconds * scale)
        if found.best is None:
            return
        value = found.best.step_seconds * scale
        self.solved.append(Solved(choice, found.best, value))
        self.best = min(self.best, value)

    def _most(self, one: Candidates, upper: float) -> int:
        """The most layers that a stage of a plan below `upper` can hold."""
        if one.pp == 1 or not np.isfinite(upper):
            return self.blocks.model.layers
        return int(most_layers(self.blocks, one, np.array([upper]))[0])
