"""Relaxed space: the outer choices of a question that may fit, each with a lower bound on its step.

Depth by depth every outer choice (planner.search.space) whose peak is not surely over the memory
limit is found, microbatch by microbatch, because the peak grows with it; each is bounded whatever
its cut (planner.cost.relaxation). Of every depth the most promising choice is cut once; choices
whose bound is far above the step of such a plan need not be kept.

Where the value of a plan is its dollars, numbers of nodes that divide the cluster's are choices
too, and seconds are weighed by the devices they occupy.
"""

from dataclasses import dataclass, replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import EXACT
from planner.cost.relaxation import hides_hops, least_bytes, relax
from planner.search import space
from planner.search.inner import Allows, Inner
from planner.search.space import divisors
from planner.search.terms import Terms
from planner.spec.runtime import Axis, Schedule

BATCH = 65_536
"""Outer choices relaxed at once: bounds the memory of a search, not its result."""
KEPT = 1.5
"""Choices that are surely slower by more than this are no neighbours worth naming."""


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
class Space:
    """The outer choices that may fit, relaxed: bound in seconds or dollars, least_bytes, [n] each.

    Those whose bound is over `kept` times the step of a plan known are not kept. enumerated: all
    choices of the space; possible: those that may fit. leanest: of least memory, fitting or not.
    known: value of a plan of the space, infinite if none is known.
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
    terms: Terms

    def __len__(self) -> int:
        return len(self.owner)

    def choice(self, place: int) -> Choice:
        """One of them."""
        return Choice(self.tables[int(self.owner[place])], int(self.row[place]))

    def places(self, owner: int) -> Ints:
        """The places of a table: they lie side by side."""
        first, end = np.searchsorted(self.owner, [owner, owner + 1])
        return np.arange(first, end)

    def take(self, places: Ints) -> "Space":
        """Some of them."""
        names = ("owner", "row", "bound", "least_bytes")
        return replace(self, **{name: getattr(self, name)[places] for name in names})

    def within(self, limit_bytes: float) -> "Space":
        """Those that may fit a smaller limit."""
        some = self.take(np.flatnonzero(self.least_bytes <= limit_bytes))
        return replace(some, terms=self.terms.within(limit_bytes))

    @property
    def limit_bytes(self) -> float:
        """Memory of a rank."""
        return self.terms.limit_bytes

    @property
    def allows(self) -> Allows:
        """Ways to recompute."""
        return self.terms.wishes.allows


def relaxed_space(blocks: Blocks, terms: Terms, known: float = np.inf, kept: float = KEPT) -> Space:
    """Enumerate, leave out what surely exceeds the limit, and relax the rest.

    known: value of a plan of the space, if there is one at hand; choices whose bound is over `kept`
    times the best known value are left out.
    """
    made = _Relaxing(blocks, terms, known, kept)
    for devices in terms.devices(blocks):
        asked = space.Question(
            blocks.model, blocks.cluster, blocks.workload, blocks.runtime, devices
        )
        for pp in space.depths(asked):
            made.depth(asked, pp)
    return made.space()


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

    def __init__(self, blocks: Blocks, terms: Terms, known: float, kept: float):
        self.blocks, self.terms, self.known, self.kept = blocks, terms, known, kept
        self.tables: list[Candidates] = []
        self.bounds: list[Floats] = []
        self.peaks: list[Floats] = []
        self.enumerated = 0
        self.possible = 0
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
        if self.terms.wishes.chooses:
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
            fits = least <= self.terms.limit_bytes
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
            if self.terms.wishes.chooses:
                kept = np.flatnonzero(self.terms.wishes.keep(table))
                own, table = own[kept], table.take(kept)
                self.enumerated += len(own)
            if not len(own):
                continue
            step = pieces.take(own).step(schedule, hides_hops(self.blocks, table))
            bound = step * self.terms.weight(self.blocks, table)
            near = np.flatnonzero(bound < self.kept * self.known)
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
        found = Inner(self.blocks, one, self.terms.limit_bytes, self.terms.wishes.allows).first(0)
        if found.best is not None:
            value = found.best.step_seconds * float(self.terms.weight(self.blocks, one)[0])
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
            terms=self.terms,
        )
