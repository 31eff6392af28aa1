"""Outer search: the best plan of the whole space, with a proof.

The choices of the relaxed space (planner.search.outer.relaxed_space) are taken in the order of
their bound, until the next one is no better than the best step so far. A choice is bounded once
more first, with what fits its ranks (planner.search.outer.refined; chunked: with its family), and
goes back to its new place; then it is solved (planner.search.inner.cut,
planner.search.inner.chunked) against the best step so far.

Then no plan of the space is faster under this cost model, but for choices whose inner problem
stayed open or whose schedule is searched in a family: `lower_bound_seconds` is the least of what
is left, and gap = 1 - lower bound / best. Nothing depends on a clock, unless a time limit is asked
for; ties go to the choice that comes first in the space.
"""

import heapq
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import EXACT
from planner.cost.relaxation import least_seconds
from planner.search.inner import family
from planner.search.inner.chunked import solve_chunked
from planner.search.inner.cut import Cut, Found, Inner
from planner.search.inner.problem import RELATIVE
from planner.search.outer import refined
from planner.search.outer.relaxed_space import KNOWN, Choice, Space


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


@dataclass(slots=True)
class Search:
    """Solves in the order of the bounds.

    goals: which choices serve which goal, [G, choices]; of every goal the best plan is sought, and
    no plan as slow as `known` [G]. By default one goal that all serve. tries: stop after so many
    inner problems. first: stop with the first solution. time_limit_seconds: CPU time after which
    the search ends, with its first solution where a plan of the space is known.

    best, left: of every goal the value of its best plan, and the least bound of what serves it and
    stayed open. bound: of every choice, for plans below the best value; lasting: for any plan, and
    so under any smaller memory limit too.
    """

    blocks: Blocks
    space: Space
    time_limit_seconds: float | None = None
    tries: int | None = None
    first: bool = False
    goals: Flags | None = None
    known: Floats | None = None
    tally: Tally = field(default_factory=Tally)
    solved: list[Solved] = field(default_factory=list)
    best: Floats = field(default_factory=lambda: np.zeros(0))
    left: Floats = field(default_factory=lambda: np.zeros(0))
    found: dict[int, Solved] = field(default_factory=dict)
    serves: Flags = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    bound: Floats = field(default_factory=lambda: np.zeros(0))
    lasting: Floats = field(default_factory=lambda: np.zeros(0))
    refined: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))
    batches: dict[int, "_Batch"] = field(default_factory=dict)

    def run(self) -> Outcome:
        """Solve until the next bound is no better than the best value of any goal."""
        begun = time.process_time()
        space, tally = self.space, self.tally
        self._start()
        queue = [(float(space.bound[place]), int(place)) for place in self._queued()]
        heapq.heapify(queue)
        while queue:
            bound, place = heapq.heappop(queue)
            if bound >= self.best.max() * (1 - RELATIVE):
                break
            if self._enough(begun):
                tally.stopped = True
                self._leave(np.array([place, *(each for _, each in queue)]))
                break
            if bound >= self._uppers(np.array([place]))[0] * (1 - RELATIVE):
                continue
            if bound < self.bound[place]:
                heapq.heappush(queue, (float(self.bound[place]), place))
            elif self._refinable(place):
                self._refine(place)
                heapq.heappush(queue, (float(self.bound[place]), place))
            else:
                self._solve(place)
        tally.bounded = space.possible - tally.solved
        found = sorted(self.solved, key=lambda each: each.value)
        value = found[0].value if found else np.inf
        lower = min(float(self.left.min()), value)
        gap = max(0.0, 1 - lower / value) if found else 0.0
        return Outcome(tuple(found), lower, gap if gap > RELATIVE else 0.0, tally)

    def _start(self) -> None:
        space, tally = self.space, self.tally
        everything = np.ones((1, len(space)), dtype=bool)
        self.serves = everything if self.goals is None else self.goals
        known = np.full(len(self.serves), space.known) if self.known is None else self.known
        # the known plan itself must stay below it, to be found again
        self.best = known * (1 + KNOWN)
        self.left = np.full(len(self.serves), np.inf)
        tally.enumerated = space.enumerated
        tally.impossible = space.enumerated - space.possible
        self.bound, self.lasting = space.bound.copy(), space.bound.copy()
        self.refined = np.zeros(len(space), dtype=bool)

    def _queued(self) -> Ints:
        """The places that may be better than the best of a goal that they serve."""
        near = self.space.bound < self.best.max()
        places = np.flatnonzero(near & self.serves.any(axis=0))
        return places[self.space.bound[places] < self._uppers(places)]

    def _uppers(self, places: Ints) -> Floats:
        """The value that a plan of each place must beat, [places]."""
        uppers: Floats = np.where(self.serves[:, places], self.best[:, None], -np.inf).max(axis=0)
        return uppers

    def _leave(self, places: Ints) -> None:
        """What was not solved bounds the goals that it serves."""
        serves = self.serves[:, places]
        self.left = np.minimum(self.left, np.where(serves, self.bound[places], np.inf).min(axis=1))

    def _refinable(self, place: int) -> bool:
        if self.refined[place]:
            return False
        table = self.space.tables[int(self.space.owner[place])]
        if table.schedule not in EXACT:
            return True
        known = bool(np.isfinite(self.best).all()) or self.tally.solved >= UNKNOWN
        return self.blocks.runtime.free_stages and table.pp > 1 and known

    def _near(self, owner: int) -> Ints:
        """The places of a table that may still be better, by their bound."""
        places = self.space.places(owner)
        alike = places[self.bound[places] < self._uppers(places)]
        return alike[np.argsort(self.bound[alike], kind="stable")]

    def _refine(self, place: int) -> None:
        """Bound this choice and the next of its table once more, with what fits their ranks."""
        space, owner = self.space, int(self.space.owner[place])
        table = space.tables[owner]
        alike = self._near(owner)
        alike = alike[~self.refined[alike]]
        most = (refined if table.schedule in EXACT else family).at_once(self.blocks, table)
        some = np.unique(np.append(alike[:most], place))
        rows = table.take(space.row[some])
        scale = space.terms.weight(self.blocks, rows)
        uppers = self._uppers(some)
        upper = uppers / scale
        if table.schedule in EXACT:
            bound = refined.refined_bound(self.blocks, rows, space.limit_bytes, upper)
        else:
            pipeline = family.family_bound(
                self.blocks, rows, space.limit_bytes, upper, space.allows
            )
            bound = least_seconds(self.blocks, rows, pipeline)
        self.bound[some] = np.maximum(self.bound[some], bound * scale)
        self.lasting[some] = np.maximum(self.lasting[some], np.minimum(bound * scale, uppers))
        self.refined[some] = True

    def _enough(self, begun: float) -> bool:
        if self.tries is not None:
            return self.tally.solved >= self.tries
        if self.first and self.solved:
            return True
        limit = self.time_limit_seconds
        late = limit is not None and time.process_time() - begun > limit
        return late and (bool(self.solved) or not np.isfinite(self.space.known))

    def _solve(self, place: int) -> None:
        space, choice = self.space, self.space.choice(place)
        one = choice.one
        scale = float(space.terms.weight(self.blocks, one)[0])
        upper = float(self._uppers(np.array([place]))[0]) / scale
        if one.schedule in EXACT:
            batch = self._batch(place)
            found = batch.inner.solve(batch.rows[place], upper, batch.most)
        else:
            found = solve_chunked(self.blocks, one, space.limit_bytes, upper, space.allows)
            self.tally.family += 1
        self._note(place, choice, found, scale, upper)

    def _batch(self, place: int) -> "_Batch":
        """The choices that are tabulated together with one: the next of its table."""
        owner = int(self.space.owner[place])
        known = self.batches.pop(owner, None)
        if known is None or place not in known.rows:
            known = self._gather(place, owner)
        self.batches[owner] = known
        while len(self.batches) > KEPT_BATCHES:
            del self.batches[next(iter(self.batches))]
        return known

    def _gather(self, place: int, owner: int) -> "_Batch":
        table = self.space.tables[owner]
        most = refined.at_once(self.blocks, table)
        near = self._near(owner)
        near = near[(self.refined[near]) & (self.bound[near] >= self.bound[place])]
        places = np.array([place, *(int(each) for each in near[:most] if each != place)][:most])
        rows = table.take(self.space.row[places])
        upper = self._uppers(places) / self.space.terms.weight(self.blocks, rows)
        inner = Inner(self.blocks, rows, self.space.limit_bytes, self.space.allows)
        held = self._most(rows, upper)
        return _Batch(inner, {int(each): row for row, each in enumerate(places)}, held)

    def _note(self, place: int, choice: Choice, found: Found, scale: float, upper: float) -> None:
        self.tally.solved += 1
        self.tally.replayed += found.replayed
        serves = self.serves[:, place]
        open_value = found.open_seconds * scale
        self.left = np.where(serves, np.minimum(self.left, open_value), self.left)
        least = min(found.below(upper), found.open_seconds) * scale
        self.lasting[place] = max(self.lasting[place], least)
        if found.best is None:
            return
        solved = Solved(choice, found.best, found.best.step_seconds * scale)
        self.solved.append(solved)
        for goal in np.flatnonzero(serves & (solved.value < self.best)).tolist():
            self.best[goal] = solved.value
            self.found[goal] = solved

    def _most(self, rows: Candidates, upper: Floats) -> int:
        """The most layers that a stage of a plan below `upper` can hold."""
        if rows.pp == 1:
            return self.blocks.model.layers
        return refined.most_layers(self.blocks, rows, upper, self.space.limit_bytes)


UNKNOWN = 8
"""Choices that are solved before what fits their ranks bounds the others, where no plan is known:
one of the first mostly has a plan. Assumed."""
KEPT_BATCHES = 16
"""Batches whose tables are kept: bounds the memory of a search, not its result. Assumed: a batch
takes some ten MB, and as many tables are worked on in turn."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Choices of one table that are solved with the same tables. rows: of every place of the space;
    most: layers of one stage."""

    inner: Inner
    rows: dict[int, int]
    most: int
