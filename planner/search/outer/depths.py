"""Depths: the outer choices of every number of stages that may fit a device.

Rows of a depth (planner.search.outer.space.COLUMNS) are states (mesh, ZeRO, sharding,
synchronisation) with a microbatch; schedule, chunks and placement come later, because the least
peak of a row does not depend on them. The peak grows with the microbatch, so larger ones are tried
only where smaller ones fit, LEVELS[k] sizes at a time.

All depths take a level together: then the blocks of a question are costed in a few passes over long
columns (planner.cost.block_tables.cost_together) instead of many over short ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import cost_together
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.relaxation import least_bytes
from planner.search.outer import space
from planner.search.outer.space import Question
from planner.search.wishes import Wishes
from planner.spec.divisors import divisors
from planner.spec.runtime import Axis, Schedule

LEVELS = (1, 3, 8, 1_000_000)
"""How many sizes of microbatches are tried before the next ones: few where memory is tight."""

Flags = NDArray[np.bool_]


@dataclass(slots=True)
class Depth:
    """The choices of one number of stages. schedules: with their chunks. bare: states whose next
    microbatches are still to be tried. rows, peaks: choices that may fit, and their least bytes.
    least: their least values under the first order, once they are known."""

    asked: Question
    pp: int
    schedules: list[tuple[Schedule, int]]
    orders: list[tuple[Axis, ...]]
    bare: Ints
    rows: Ints = field(init=False)
    peaks: Floats = field(init=False)
    least: Floats | None = None

    def __post_init__(self) -> None:
        self.rows = np.zeros((0, len(space.COLUMNS)), dtype=np.int64)
        self.peaks = np.zeros(0)

    def table(self, order: tuple[Axis, ...], rows: Ints) -> Candidates:
        """Rows as a table, whatever their schedule."""
        return space.table(self.asked, self.pp, "1f1b", 1, order, rows)

    def allowed(self, rows: Ints) -> dict[Schedule, Flags]:
        """Which rows every schedule can run."""
        names = dict.fromkeys(schedule for schedule, _ in self.schedules)
        return {name: space.allowed(self.asked, self.pp, name, rows) for name in names}

    def keep(self, flags: Flags) -> None:
        """Leave only the rows so flagged."""
        self.rows, self.peaks = self.rows[flags], self.peaks[flags]
        if self.least is not None:
            self.least = self.least[flags]

    def count(self, wishes: Wishes) -> int:
        """How many choices there are, fitting or not: one row stands for all that are alike."""
        keys = [space.COLUMNS.index(name) for name in ("dp", "cp", "zero")]
        _, first, often = np.unique(
            self.bare[:, keys], axis=0, return_index=True, return_counts=True
        )
        rows, own = _sized(self.bare[first], _sizes(self), range(LEVELS[-1]))
        found, total = self.allowed(rows), 0
        for order in self.orders:
            plain = self.table(order, rows)
            for schedule, vpp in self.schedules:
                kept = found[schedule]
                if wishes.chooses:
                    kept = kept & wishes.keep_later(replace(plain, schedule=schedule, vpp=vpp))
                total += int(often[own][kept].sum())
        return total


def depths(asked: Question, wishes: Wishes) -> list[Depth]:
    """Every depth that has choices; states that no wish leaves are not among them."""
    found = []
    for pp in space.depths(asked):
        schedules = list(space.schedules(asked.runtime, asked.model, pp))
        bare = space.states(asked, pp)
        if wishes.chooses and len(bare):
            ones = np.insert(bare, bare.shape[1], 1, axis=1)
            orders = space.orders(asked.runtime, pp)
            table = space.table(asked, pp, "1f1b", 1, orders[0], ones)
            bare = bare[wishes.keep_states(table)]
        if len(bare) and schedules:
            orders = space.orders(asked.runtime, pp)
            found.append(Depth(asked, pp, schedules, orders, bare))
    return found


@dataclass(frozen=True, slots=True)
class Leanest:
    """The row of least peak there is, fitting or not."""

    peak_bytes: float
    table: Candidates
    row: int


def fill(blocks: Blocks, found: list[Depth], limit_bytes: float) -> Leanest | None:
    """Find the rows of every depth that may fit, level by level."""
    leanest: Leanest | None = None
    first = 0
    for levels in LEVELS:
        parts = [
            (depth, *_sized(depth.bare, _sizes(depth), range(first, first + levels)))
            for depth in found
            if len(depth.bare)
        ]
        parts = [part for part in parts if len(part[1])]
        cost_together(blocks, (depth.table(depth.orders[0], rows) for depth, rows, _ in parts))
        for depth, rows, own in parts:
            table = depth.table(depth.orders[0], rows)
            least = least_bytes(blocks, table)
            if first == 0:
                leanest = _leaner(leanest, table, least)
            _keep(depth, rows, own, least, limit_bytes, levels)
        first += levels
    return leanest


def _keep(
    depth: Depth, rows: Ints, own: Ints, least: Floats, limit_bytes: float, levels: int
) -> None:
    fits = least <= limit_bytes
    depth.rows = np.concatenate([depth.rows, rows[fits]])
    depth.peaks = np.concatenate([depth.peaks, least[fits]])
    # those whose largest size so far fits
    depth.bare = depth.bare[np.bincount(own[fits], minlength=len(depth.bare)) == levels]


def _leaner(leanest: Leanest | None, table: Candidates, least: Floats) -> Leanest:
    place = int(least.argmin())
    if leanest is not None and leanest.peak_bytes <= least[place]:
        return leanest
    return Leanest(float(least[place]), table, place)


def _sizes(depth: Depth) -> dict[int, list[int]]:
    """The sizes of microbatches for every dp."""
    batch = depth.asked.workload.global_batch
    return {dp: divisors(batch // dp) for dp in np.unique(depth.bare[:, space.DP]).tolist()}


def _sized(bare: Ints, sizes: dict[int, list[int]], levels: range) -> tuple[Ints, Ints]:
    """Rows with each of the sizes at these places of their list, and the bare row of each."""
    rows, own = [np.zeros((0, bare.shape[1] + 1), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for dp, known in sizes.items():
        places = np.flatnonzero(bare[:, space.DP] == dp)
        for size in known[levels.start : levels.stop]:
            rows.append(np.insert(bare[places], bare.shape[1], size, axis=1))
            own.append(places)
    return np.concatenate(rows), np.concatenate(own)


def batches(depth: Depth, most: int) -> Iterator[tuple[tuple[Axis, ...], Ints]]:
    """Places of a depth's rows, at most so many at once, under every order."""
    for order in depth.orders:
        for start in range(0, len(depth.rows), most):
            yield order, np.arange(start, min(start + most, len(depth.rows)))
