"""Outer search: the best plan of the whole space, with a proof.

    1  every outer choice (planner.search.space) whose peak is not surely over the memory limit is
       found, microbatch by microbatch, because the peak grows with it
    2  each is relaxed: a lower bound on its step, whatever its cut (planner.cost.relaxation)
    3  they are taken in the order of their bound, until the next one is no better than the
       best step so far. A choice is bounded once more first, with what fits its ranks
       (planner.search.refined; chunked: with its family), and goes back to its new place; then
       it is solved (planner.search.inner, planner.search.chunked) against the best step so far

Then no plan of the space is faster under this cost model, but for choices whose inner problem
stayed open or whose schedule is searched in a family: `lower_bound_seconds` is the least of what
is left, and gap = 1 - lower bound / best. Nothing depends on a clock, unless a time limit is asked
for; ties go to the choice that comes first in the space.

Objectives: seconds of a step, or its dollars (then numbers of nodes that divide the cluster's are
choices too, and seconds are weighed by the devices they occupy).
"""

import heapq
import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import EXACT
from planner.cost.relaxation import hides_hops, least_bytes, least_seconds, relax
from planner.search import family, refined, space
from planner.search.chunked import solve_chunked
from planner.search.inner import Allows, Cut, Found, Inner
from planner.search.problem import RELATIVE
from planner.search.space import divisors
from planner.search.wishes import Wishes
from planner.spec.runtime import Axis, Schedule

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


@dataclass(frozen=True, slots=True)
class Space:
    """The outer choices that may fit, relaxed: bound in seconds or dollars, least_bytes, [n] each.

    Those whose bound is over KEPT times the step of a plan known are not kept. enumerated: all
    choices of the space; possible: those that may fit. leanest: of least memory, fitting or not.
    known: value of a plan of the space, infinite if none is known. limit_bytes: memory of a rank.
    dollars: values are a step's dollars. allows: ways to recompute.
    """

    tables: list[Candidates]
    owner: Ints
    row: Ints
    bound: Floats
    least_bytes: Floats
    enumerated: int
    possible: int
    leanest: Choice | None
    known: float
    limit_bytes: float
    dollars: bool
    allows: Allows

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
    blocks: Blocks, limit_bytes: float, dollars: bool = False, wishes: Wishes | None = None
) -> Space:
    """Enumerate, leave out what surely exceeds the limit, and relax the rest."""
    wishes = wishes or Wishes()
    sizes = [blocks.cluster.devices]
    if dollars:
        per_node = blocks.cluster.devices_per_node
        sizes = [per_node * n for n in divisors(blocks.cluster.nodes)]
    made = _Relaxing(blocks, limit_bytes, dollars, wishes)
    for devices in sizes:
        asked = space.Question(
            blocks.model, blocks.cluster, blocks.workload, blocks.runtime, devices
        )
        for pp in space.depths(asked):
            made.depth(asked, pp)
    return made.space()


KNOWN = 1e-6
"""How far above a known plan a search begins. Assumed: well above the rounding of a step."""
KEPT = 1.5
"""Choices that are surely slower by more than this are no neighbours worth naming."""
LEVELS = (1, 3, 8, 1_000_000)
"""How many sizes of microbatches are tried before the next ones: few where memory is tight."""


def _sized(bare: Ints, sizes: dict[int, list[int]], levels: range) -> tuple[Ints, Ints]:
    """Rows with each of the sizes at these places of their list, and the bare row of each."""
    rows, own = [np.zeros((0, bare.shape[1] + 1), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for dp, known in sizes.items():
        places = np.flatnonzero(bare[:, space.DP] == dp)
        for size in known[levels.start : levels.stop]:
            rows.append(np.insert(bare[places], bare.shape[1], size, axis=1))
            own.append(places)
    return np.concatenate(rows), np.concatenate(own)


class _Relaxing:
    """Builds a Space depth by depth."""

    def __init__(self, blocks: Blocks, limit: float, dollars: bool, wishes: Wishes):
        self.blocks, self.limit, self.dollars, self.wishes = blocks, limit, dollars, wishes
        self.tables: list[Candidates] = []
        self.bounds: list[Floats] = []
        self.peaks: list[Floats] = []
        self.enumerated = 0
        self.possible = 0
        self.known = np.inf
        self.leanest: tuple[float, Choice] | None = None

    def depth(self, asked: space.Question, pp: int) -> None:
        """All choices of one depth."""
        schedules = list(space.schedules(asked.runtime, asked.model, pp))
        orders = space.orders(asked.runtime, pp)
        bare = space.states(asked, pp)
        if not len(bare) or not schedules:
            return
        self._count(asked, pp, bare, schedules, orders)
        rows, peaks = self._fitting(asked, pp, bare, orders[0])
        if not len(rows):
            return
        for order in orders:
            plain = space.table(asked, pp, "1f1b", 1, order, rows)
            for start in range(0, len(rows), BATCH):
                some = np.arange(start, min(start + BATCH, len(rows)))
                self._schedules(asked, plain.take(some), rows[some], peaks[some], schedules)
        self._learn(pp)

    def _count(
        self,
        asked: space.Question,
        pp: int,
        bare: Ints,
        schedules: list[tuple[Schedule, int]],
        orders: list[tuple[Axis, ...]],
    ) -> None:
        """How many choices there are, without a table of them."""
        if self.wishes.chooses:
            return  # those that may fit are counted as they are filtered
        for dp in np.unique(bare[:, space.DP]).tolist():
            own = bare[bare[:, space.DP] == dp]
            for size in divisors(asked.workload.global_batch // dp):
                rows = np.insert(own, own.shape[1], size, axis=1)
                found = {s: int(space.allowed(asked, pp, s, rows).sum()) for s, _ in schedules}
                self.enumerated += len(orders) * sum(found[s] for s, _ in schedules)

    def _fitting(
        self, asked: space.Question, pp: int, bare: Ints, order: tuple[Axis, ...]
    ) -> tuple[Ints, Floats]:
        """Rows with every microbatch that may fit: larger ones are tried where smaller ones fit."""
        sizes = {
            dp: divisors(asked.workload.global_batch // dp)
            for dp in np.unique(bare[:, space.DP]).tolist()
        }
        found, peaks, first = [], [], 0
        for levels in LEVELS:
            rows, own = _sized(bare, sizes, range(first, first + levels))
            if not len(rows):
                break
            table = space.table(asked, pp, "1f1b", 1, order, rows)
            least = least_bytes(self.blocks, table)
            if first == 0:
                self._remember(table, least)
            fits = least <= self.limit
            found.append(rows[fits])
            peaks.append(least[fits])
            # those whose largest size so far fits
            bare, first = (
                bare[np.bincount(own[fits], minlength=len(bare)) == levels],
                first + levels,
            )
        return np.concatenate(found), np.concatenate(peaks)

    def _remember(self, table: Candidates, least: Floats) -> None:
        place = int(least.argmin())
        if self.leanest is None or least[place] < self.leanest[0]:
            self.leanest = float(least[place]), Choice(table, place)

    def _schedules(
        self,
        asked: space.Question,
        plain: Candidates,
        rows: Ints,
        peaks: Floats,
        schedules: list[tuple[Schedule, int]],
    ) -> None:
        pieces = relax(self.blocks, plain)
        for schedule, vpp in schedules:
            own = np.flatnonzero(space.allowed(asked, plain.pp, schedule, rows))
            table = replace(plain.take(own), schedule=schedule, vpp=vpp)
            if self.wishes.chooses:
                kept = np.flatnonzero(self.wishes.keep(table))
                own, table = own[kept], table.take(kept)
                self.enumerated += len(own)
            if not len(own):
                continue
            step = pieces.take(own).step(schedule, hides_hops(self.blocks, table))
            bound = step * weight(self.blocks, table, self.dollars)
            near = np.flatnonzero(bound < KEPT * self.known)
            self.possible += len(own)
            if len(near):
                self.tables.append(table.take(near))
                self.bounds.append(bound[near])
                self.peaks.append(peaks[own][near])

    def _learn(self, pp: int) -> None:
        """Cut the most promising choice of a depth, so that hopeless ones need not be kept."""
        own = [i for i, table in enumerate(self.tables) if table.pp == pp]
        plain = [i for i in own if self.tables[i].schedule in EXACT]
        if not plain:
            return
        place = min(plain, key=lambda i: float(self.bounds[i].min()))
        one = Choice(self.tables[place], int(self.bounds[place].argmin())).one
        found = Inner(self.blocks, one, self.limit, self.wishes.allows).first(0)
        if found.best is not None:
            value = found.best.step_seconds * float(weight(self.blocks, one, self.dollars)[0])
            self.known = min(self.known, value)

    def space(self) -> Space:
        """Everything so far."""
        lengths = [len(table) for table in self.tables]
        leanest = None if self.leanest is None else self.leanest[1]
        nothing = [np.zeros(0)]
        return Space(
            tables=self.tables,
            owner=np.repeat(np.arange(len(lengths)), lengths),
            row=np.concatenate([np.arange(n) for n in lengths] or [np.zeros(0, dtype=np.int64)]),
            bound=np.concatenate(self.bounds or nothing),
            least_bytes=np.concatenate(self.peaks or nothing),
            enumerated=self.enumerated,
            possible=self.possible,
            leanest=leanest,
            known=self.known,
            limit_bytes=self.limit,
            dollars=self.dollars,
            allows=self.wishes.allows,
        )


@dataclass(slots=True)
class Search:
    """The third step: solve in the order of the bounds. tries: stop after so many inner problems.

    time_limit_seconds: CPU time after which the first solution ends the search.
    """

    blocks: Blocks
    space: Space
    time_limit_seconds: float | None = None
    tries: int | None = None
    tally: Tally = field(default_factory=Tally)
    solved: list[Solved] = field(default_factory=list)
    best: float = np.inf
    left: float = np.inf
    bound: Floats = field(default_factory=lambda: np.zeros(0))
    refined: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))
    batches: dict[int, "_Batch"] = field(default_factory=dict)

    def run(self) -> Outcome:
        """Solve until the next bound is no better than the best value."""
        begun = time.process_time()
        space, tally = self.space, self.tally
        # the known plan itself must stay below it, to be found again
        self.best = space.known * (1 + KNOWN)
        places = np.flatnonzero(np.isfinite(space.bound))
        tally.enumerated = space.enumerated
        tally.impossible = space.enumerated - space.possible
        self.bound = space.bound.copy()
        self.refined = np.zeros(len(space), dtype=bool)
        queue = [(float(space.bound[place]), int(place)) for place in places]
        heapq.heapify(queue)
        while queue:
            bound, place = heapq.heappop(queue)
            if bound >= self.best * (1 - RELATIVE):
                break
            if self._enough(begun):
                tally.stopped, self.left = True, min(self.left, bound)
                break
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
        lower = min(self.left, value)
        gap = max(0.0, 1 - lower / value) if found else 0.0
        return Outcome(tuple(found), lower, gap if gap > RELATIVE else 0.0, tally)

    def _refinable(self, place: int) -> bool:
        if self.refined[place]:
            return False
        table = self.space.tables[int(self.space.owner[place])]
        if table.schedule not in EXACT:
            return True
        return self.blocks.runtime.free_stages and table.pp > 1 and bool(np.isfinite(self.best))

    def _refine(self, place: int) -> None:
        """Bound this choice and the next of its table once more, with what fits their ranks."""
        space, owner = self.space, int(self.space.owner[place])
        table = space.tables[owner]
        alike = np.flatnonzero((space.owner == owner) & ~self.refined & (self.bound < self.best))
        alike = alike[np.argsort(self.bound[alike], kind="stable")]
        most = (refined if table.schedule in EXACT else family).at_once(self.blocks, table)
        some = np.unique(np.append(alike[:most], place))
        rows = table.take(space.row[some])
        scale = weight(self.blocks, rows, space.dollars)
        upper = self.best / scale
        if table.schedule in EXACT:
            bound = refined.refined_bound(self.blocks, rows, space.limit_bytes, upper)
        else:
            pipeline = family.family_bound(
                self.blocks, rows, space.limit_bytes, upper, space.allows
            )
            bound = least_seconds(self.blocks, rows, pipeline)
        self.bound[some] = np.maximum(self.bound[some], bound * scale)
        self.refined[some] = True

    def _enough(self, begun: float) -> bool:
        if self.tries is not None:
            return self.tally.solved >= self.tries
        limit = self.time_limit_seconds
        late = limit is not None and time.process_time() - begun > limit
        return late and bool(self.solved)

    def _solve(self, place: int) -> None:
        space, choice = self.space, self.space.choice(place)
        one = choice.one
        scale = float(weight(self.blocks, one, space.dollars)[0])
        upper = self.best / scale
        if one.schedule in EXACT:
            batch = self._batch(place)
            found = batch.inner.solve(batch.rows[place], upper, batch.most)
        else:
            found = solve_chunked(self.blocks, one, space.limit_bytes, upper, space.allows)
            self.tally.family += 1
        self._note(choice, found, scale)

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
        near = np.flatnonzero((self.space.owner == owner) & (self.bound < self.best))
        near = near[(self.refined[near]) & (self.bound[near] >= self.bound[place])]
        near = near[np.argsort(self.bound[near], kind="stable")]
        places = [place, *(int(each) for each in near[:most] if each != place)][:most]
        rows = table.take(self.space.row[places])
        upper = self.best / weight(self.blocks, rows, self.space.dollars)
        inner = Inner(self.blocks, rows, self.space.limit_bytes, self.space.allows)
        held = self._most(rows, upper)
        return _Batch(inner, {each: row for row, each in enumerate(places)}, held)

    def _note(self, choice: Choice, found: Found, scale: float) -> None:
        self.tally.solved += 1
        self.tally.replayed += found.replayed
        self.left = min(self.left, found.open_seconds * scale)
        if found.best is None:
            return
        value = found.best.step_seconds * scale
        self.solved.append(Solved(choice, found.best, value))
        self.best = min(self.best, value)

    def _most(self, rows: Candidates, upper: Floats) -> int:
        """The most layers that a stage of a plan below `upper` can hold."""
        if rows.pp == 1 or not np.isfinite(upper).all():
            return self.blocks.model.layers
        return int(refined.most_layers(self.blocks, rows, upper).max())


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
