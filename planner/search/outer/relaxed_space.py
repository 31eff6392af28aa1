"""Relaxed space: the outer choices of a question that may fit, each with a lower bound on its step.

Of the choices that may fit (planner.search.outer.depths) one of every depth is cut at once, so that
a good value is known early; where none of these fits, choices whose ranks cannot hold all layers
are left out (planner.search.outer.capacity). Choices whose layers alone take too long beside it are
dropped; the others are bounded whatever their cut (planner.cost.relaxation), and kept unless that
bound is far above the best value known. Where many are left, even cuts of the most promising ones
are surveyed (planner.search.outer.promising), and the best of them are solved.

Where the value of a plan is its dollars, numbers of nodes that divide the cluster's are choices
too, and seconds are weighed by the devices they occupy.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import cost_together
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import EXACT
from planner.cost.relaxation import Relaxed, hides_hops, layer_seconds, relax
from planner.schedule.orders import V_SHAPED
from planner.search.inner.chunked import solve_chunked
from planner.search.inner.cut import Allows, Inner
from planner.search.outer import space
from planner.search.outer.capacity import can_hold
from planner.search.outer.depths import Depth, Leanest, batches, depths, fill
from planner.search.outer.promising import promising
from planner.search.outer.space import Question
from planner.search.outer.terms import Terms
from planner.spec.runtime import Axis, Schedule

BATCH = 65_536
"""Outer choices relaxed at once: bounds the memory of a search, not its result."""
KEPT = 1.5
"""Choices that are surely slower by more than this are no neighbours worth naming."""
MANY = 5_000
"""Choices below the best value known from which on a survey pays. Measured: it takes some 0.1 CPU s
and saves 0.1 to 2 s of the standard problems above, nothing below."""
KNOWN = 1e-6
"""How far above a known plan a search begins, so that it finds that plan again. Assumed: well above
the rounding of a step."""

Flags = NDArray[np.bool_]


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
        asked = Question(blocks.model, blocks.cluster, blocks.workload, blocks.runtime, devices)
        made.size(asked)
    made.survey()
    return made.space()


class _Relaxing:
    """Builds a Space, one number of devices after the other."""

    def __init__(self, blocks: Blocks, terms: Terms, known: float, kept: float):
        self.blocks, self.terms, self.known, self.kept = blocks, terms, known, kept
        self.tables: list[Candidates] = []
        self.bounds: list[Floats] = []
        self.peaks: list[Floats] = []
        self.enumerated = 0
        self.possible = 0
        self.leanest: Leanest | None = None

    def size(self, asked: Question) -> None:
        """All choices of one number of devices."""
        found = depths(asked, self.terms.wishes)
        self.enumerated += sum(depth.count(self.terms.wishes) for depth in found)
        leanest = fill(self.blocks, found, self.terms.limit_bytes)
        if leanest and (not self.leanest or leanest.peak_bytes < self.leanest.peak_bytes):
            self.leanest = leanest
        found = [depth for depth in found if len(depth.rows)]
        others = [depth.table(order, depth.rows) for depth in found for order in depth.orders[1:]]
        cost_together(self.blocks, others)
        for depth in found:
            self._promise(depth)
        if not np.isfinite(self.known):
            found = [depth for depth in found if self._holds(depth)]
        for depth in found:
            for order, some in batches(depth, BATCH):
                self._relax(depth, order, some)
            self._learn(depth.pp)

    def _holds(self, depth: Depth) -> bool:
        """Leave only rows of a depth whose ranks may hold all layers; whether there are any."""
        if depth.pp > 1:
            v_shaped = any(schedule in V_SHAPED for schedule, _ in depth.schedules)
            table = depth.table(depth.orders[0], depth.rows)
            depth.keep(can_hold(self.blocks, table, self.terms.limit_bytes, v_shaped))
        return len(depth.rows) > 0

    def _near(self) -> float:
        """Bounds below it are kept."""
        return self.kept * self.known * (1 + KNOWN)

    def _promise(self, depth: Depth) -> None:
        """Cut the choice of a depth that would be fastest if layers were all there is."""
        exact = [(s, vpp) for s, vpp in depth.schedules if s in EXACT]
        if not exact:
            return
        schedule, vpp = exact[-1]
        plain = depth.table(depth.orders[0], depth.rows)
        table = replace(plain, schedule=schedule, vpp=vpp)
        legal = space.allowed(depth.asked, depth.pp, schedule, depth.rows)
        if self.terms.wishes.chooses:
            legal = legal & self.terms.wishes.keep(table)
        if not legal.any():
            return
        m, depth.least = table.microbatches, self._least(plain)
        busy = depth.least * (m + depth.pp - 1) / m
        place = int(np.where(legal, busy, np.inf).argmin())
        self._try(Choice(table, place).one)

    def _least(self, table: Candidates) -> Floats:
        """The value that no plan of a row falls below, from its layers' seconds alone, [N]."""
        seconds = layer_seconds(self.blocks, table)
        least: Floats = seconds * self.terms.weight(self.blocks, table)
        return least

    def _relax(self, depth: Depth, order: tuple[Axis, ...], some: Ints) -> None:
        """Bound rows of a depth under an order, those that are not hopeless already."""
        plain = depth.table(order, depth.rows[some])
        found, least = depth.allowed(depth.rows[some]), depth.least
        usual = least is not None and order == depth.orders[0]
        least = least[some] if least is not None and usual else self._least(plain)
        chosen = {each: self._chosen(plain, each, found[each[0]]) for each in depth.schedules}
        self.possible += sum(int(flags.sum()) for flags in chosen.values())
        any_of = np.any(list(chosen.values()), axis=0)
        near = np.flatnonzero(any_of & (least < self._near()))
        if not len(near):
            return
        pieces = relax(self.blocks, plain.take(near))
        self._schedules(pieces, depth.peaks[some][near], {s: f[near] for s, f in chosen.items()})

    def _chosen(self, plain: Candidates, each: tuple[Schedule, int], legal: Flags) -> Flags:
        """The rows that a schedule with so many chunks can run and no wish leaves out."""
        wishes = self.terms.wishes
        if not wishes.chooses:
            return legal
        return legal & wishes.keep(replace(plain, schedule=each[0], vpp=each[1]))

    def _schedules(
        self, pieces: Relaxed, peaks: Floats, chosen: dict[tuple[Schedule, int], Flags]
    ) -> None:
        """Bound every schedule; those that differ in the number of chunks only share their bound
        and the columns of their tables."""
        weights = self.terms.weight(self.blocks, pieces.choices)
        shared: dict[tuple[str, bool, bytes], tuple[Candidates, Floats, Floats]] = {}
        for (schedule, vpp), flags in chosen.items():
            hides = hides_hops(self.blocks, replace(pieces.choices, vpp=vpp))
            key = schedule, hides, flags.tobytes()
            if key not in shared:
                bound = pieces.step(schedule, hides) * weights
                near = np.flatnonzero(flags & (bound < self._near()))
                shared[key] = pieces.choices.take(near), bound[near], peaks[near]
            table, bound, least = shared[key]
            if len(table):
                self.tables.append(replace(table, schedule=schedule, vpp=vpp))
                self.bounds.append(bound)
                self.peaks.append(least)

    def _learn(self, pp: int) -> None:
        """Cut the most promising choice of a depth, so that hopeless ones need not be kept."""
        own = [i for i, table in enumerate(self.tables) if table.pp == pp]
        plain = [i for i in own if self.tables[i].schedule in EXACT]
        if not plain:
            return
        place = min(plain, key=lambda i: float(self.bounds[i].min()))
        self._try(Choice(self.tables[place], int(self.bounds[place].argmin())).one)

    def survey(self) -> None:
        """Cut what promises most of all, where so many choices are left that it pays."""
        if sum(int((bound < self.known).sum()) for bound in self.bounds) < MANY:
            return
        for each in promising(self.blocks, self.tables, self.bounds, self.terms, self.known):
            if each.value < self.known:
                self._try(each.one)

    def _try(self, one: Candidates) -> None:
        """Learn the value of a good cut of one choice."""
        limit, allows = self.terms.limit_bytes, self.terms.wishes.allows
        weight = float(self.terms.weight(self.blocks, one)[0])
        if one.schedule in EXACT:
            found = Inner(self.blocks, one, limit, allows).first(0)
        else:
            found = solve_chunked(self.blocks, one, limit, self.known / weight, allows)
        if found.best is not None:
            self.known = min(self.known, found.best.step_seconds * weight)

    def space(self) -> Space:
        """Everything so far that is still near the best known value."""
        parts = [
            (table, np.flatnonzero(bound < self._near()), bound, peaks)
            for table, bound, peaks in zip(self.tables, self.bounds, self.peaks, strict=True)
        ]
        parts = [part for part in parts if len(part[1])]
        lengths = [len(rows) for _, rows, _, _ in parts]
        none, nothing = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
        return Space(
            tables=[table for table, *_ in parts],
            owner=np.repeat(np.arange(len(lengths)), lengths),
            row=np.concatenate([rows for _, rows, _, _ in parts] or none),
            bound=np.concatenate([bound[rows] for _, rows, bound, _ in parts] or nothing),
            least_bytes=np.concatenate([peaks[rows] for _, rows, _, peaks in parts] or nothing),
            enumerated=self.enumerated,
            possible=self.possible,
            leanest=None if self.leanest is None else Choice(self.leanest.table, self.leanest.row),
            known=self.known,
            terms=self.terms,
        )
