"""Stage tables: what one pipeline rank would cost with any layers, for a few outer choices.

For rank i of p, layers [u, u + n) and a way to recompute, planner.cost gives the seconds of a
microbatch, the exposed reduction, the update and the peak bytes; columns of Candidates are such
ranks. Where the peak exceeds the limit the seconds are infinite, so memory is no constraint of
the search behind (planner.search.problem). Layers of one kind are counted: u does not matter.

Transfers that hold their rank are part of what receives them: f + hop behind the first stage,
b + hop before the last. Everything up to the update waits for the slowest replica, so its seconds
are (1 + wait) times as long.

Ways to recompute (`Way`): a mode for the first `layers` layers of every stage; or, with layers
None, of each stage the fewest that fit, from its front. With r >= 1 of n layers recomputing a rank
holds, beside what it holds if all do, what the others keep,

    peak(r) = peak(n) + (1 + slack) * in flight * sum of (saved - kept) over the n - r others

so the fewest is a formula. For layers of one kind it is the cheapest choice, since every layer
costs the same; for several kinds the best of those that recompute from the front.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import wait_share
from planner.cost.memory import KEPT, stage_memory
from planner.cost.pipeline import in_flight
from planner.cost.stages import stage_times
from planner.search.problem import Problem, ScheduleName
from planner.spec.runtime import Recompute, Runtime

ROUNDING = 1e-12
"""Two ways to sum the same bytes differ by less."""


@dataclass(frozen=True, slots=True)
class Way:
    """Which layers recompute: the first `layers` of every stage; None: the fewest that fit, but at
    least one of stage `forced`, which holds one (where a user wants layers to recompute)."""

    mode: Recompute
    layers: int | None
    forced: int | None = None


@dataclass(frozen=True, slots=True)
class StageTables:
    """[B, p, U, N + 1] each, for B outer choices of one table; again: layers that recompute."""

    choices: Candidates
    way: Way
    forward: Floats
    backward: Floats
    reduce: Floats
    update: Floats
    again: Ints
    fixed: float

    def problem(self, row: int, layers: int) -> Problem:
        """The inner problem of one choice."""
        name: ScheduleName = "gpipe" if self.choices.schedule == "gpipe" else "1f1b"
        return Problem(
            schedule=name,
            stages=self.choices.pp,
            microbatches=int(self.choices.microbatches[row]),
            layers=layers,
            forward=self.forward[row],
            backward=self.backward[row],
            reduce=self.reduce[row],
            update=self.update[row],
            fixed=self.fixed,
        )

    def recomputed(self, row: int, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Layers of each stage that recompute in a plan."""
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        kept = self.again.shape[2] > 1
        return tuple(
            int(self.again[row, i, int(start) if kept else 0, n])
            for i, (start, n) in enumerate(zip(starts, counts, strict=True))
        )


def modes(runtime: Runtime) -> list[Recompute]:
    """The recompute modes that differ: the core alone is nothing where scores are never stored."""
    nothing = runtime.flash_attention and runtime.selective == "core"
    return [mode for mode in runtime.recompute if mode != "selective" or not nothing]


def stage_tables(
    blocks: Blocks, choices: Candidates, way: Way, limit_bytes: float, most: int
) -> StageTables:
    """Tables with up to `most` layers per stage. choices: rows of one table of the space."""
    columns = Columns.of(blocks, choices.pp, min(most, blocks.model.layers))
    again, peaks = _again(blocks, choices, columns, way, limit_bytes)
    tables = BlockTables(blocks, columns.choices(choices, way.mode, again))
    over = (stage_memory(tables).total if peaks is None else peaks) > limit_bytes
    if way.forced is not None:
        over |= (columns.rank == way.forced) & (again == 0)
    times = stage_times(tables)
    hop, later = times.hop[:, None], 1 + wait_share(blocks, choices)[:, None]
    forward = (times.forward + hop * ~tables.first) * later
    backward = (times.backward + hop * ~tables.last) * later
    spread = columns.spread
    return StageTables(
        choices=choices,
        way=way,
        forward=spread(forward),
        backward=spread(np.where(over, np.inf, backward)),
        reduce=spread(times.reduce * later),
        update=spread(times.optimizer),
        again=columns.spread_counts(again),
        fixed=blocks.runtime.step_seconds,
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """Ranks with layers: C columns. rank: [C]; kinds: [C, K]; prefix: kinds of the first r layers
    of a column, [C, N + 1, K]; place: the column of (i, u, n), [p, U, N + 1], -1 for none."""

    rank: Ints
    kinds: Ints
    prefix: Ints
    place: Ints

    @classmethod
    def of(cls, blocks: Blocks, p: int, most: int) -> "Columns":
        """All columns of p ranks with up to `most` layers (one rank holds them all)."""
        layers = blocks.model.layers
        if len(blocks.kinds) > 1:
            return _of_kinds(tuple(map(tuple, blocks.kinds_before.tolist())), p, most)
        if p == 1:
            whole, place = np.array([[layers]]), np.full((1, 1, layers + 1), -1)
            place[0, 0, layers] = 0
            return cls(np.zeros(1, np.int64), whole, _ramp(whole, layers), place)
        held = np.tile(np.arange(most + 1), p)[:, None]
        place = np.arange(p * (most + 1)).reshape(p, 1, most + 1)
        return cls(np.repeat(np.arange(p), most + 1), held, _ramp(held, most), place)

    def choices(self, choices: Candidates, mode: Recompute, again: Ints) -> Candidates:
        """The columns under outer choices, the first `again` [B, C] layers recomputing."""
        rows = len(choices)
        kinds = np.broadcast_to(self.kinds[None], (rows, *self.kinds.shape))
        chosen = self.prefix[np.arange(len(self.rank))[None, :], again]
        return replace(
            choices,
            recompute=mode,
            counts=kinds.sum(axis=2),
            kinds=kinds,
            recomputed=chosen if mode != "none" else np.zeros_like(chosen),
            stage=self.rank,
        )

    def spread(self, values: Floats) -> Floats:
        """Values of columns, [B, C], at (i, u, n); infinite where there is no column."""
        padded = np.append(values, np.full((len(values), 1), np.inf), axis=1)
        return padded[:, self.place]

    def spread_counts(self, values: Ints) -> Ints:
        """The same for counts; 0 where there is no column."""
        padded = np.append(values, np.zeros((len(values), 1), np.int64), axis=1)
        return padded[:, self.place]


@lru_cache(maxsize=256)
def _of_kinds(kinds_before: tuple[tuple[int, ...], ...], p: int, most: int) -> Columns:
    """Columns of a model with several kinds of layers; kinds_before: as in Blocks."""
    before, layers = np.array(kinds_before), len(kinds_before) - 1
    if p == 1:
        most = layers
    start, held = np.arange(layers + 1)[:, None], np.arange(most + 1)[None, :]
    ends = np.minimum(start + held, layers)
    # a segment is known by the kinds of each of its prefixes
    steps = np.minimum(start[:, :, None] + np.arange(most + 1)[None, None, :], ends[:, :, None])
    prefix = before[steps] - before[start[:, :, None]]
    legal = start + held <= layers
    if p == 1:
        legal &= held == layers
    flat = prefix.reshape(-1, (most + 1) * prefix.shape[3])
    distinct, index = np.unique(flat, axis=0, return_inverse=True)
    prefixes = distinct.reshape(len(distinct), most + 1, prefix.shape[3])
    index = np.where(legal, index.reshape(legal.shape), -1)
    used, again = np.unique(index[index >= 0], return_inverse=True)
    index[index >= 0] = again
    prefixes = prefixes[used]
    count = len(used)
    offsets = (np.arange(p) * count)[:, None, None]
    place = np.where(index[None] >= 0, index[None] + offsets, -1)
    tiled = np.tile(prefixes, (p, 1, 1))
    return Columns(np.repeat(np.arange(p), count), tiled[:, -1], tiled, place)


def _ramp(held: Ints, most: int) -> Ints:
    """The kinds of every prefix where there is one kind, [C, most + 1, 1]."""
    return np.minimum(np.arange(most + 1)[None, :, None], held[:, :, None])


def _again(
    blocks: Blocks, choices: Candidates, columns: Columns, way: Way, limit: float
) -> tuple[Ints, Floats | None]:
    """Layers of every column that recompute, and what it then holds where that is known, [B, C]."""
    held: Ints = np.broadcast_to(columns.kinds.sum(axis=1)[None], (len(choices), len(columns.rank)))
    if way.mode == "none":
        return np.zeros_like(held), None
    if way.layers is not None:
        fixed: Ints = np.minimum(held, way.layers)
        return fixed, None

    def peak(again: Ints) -> Floats:
        return stage_memory(BlockTables(blocks, columns.choices(choices, way.mode, again))).total

    free = columns.rank != way.forced
    none, every = peak(np.zeros_like(held)), peak(held)
    more = _kept_more(blocks, choices, columns, way.mode)
    fewest = _fewest_of_one if len(blocks.kinds) == 1 else _fewest
    found = fewest(limit - every, more, columns)
    found = np.minimum(np.where((none <= limit) & free, 0, found), held)
    peaks = peak(found)
    worse = (peaks > limit) & (found < held)
    if worse.any():  # the formula is exact but for rounding
        found = np.where(worse, found + 1, found)
        peaks = peak(found)
    return found, peaks


def _kept_more(blocks: Blocks, choices: Candidates, columns: Columns, mode: Recompute) -> Floats:
    """Bytes that a layer of every kind keeps more on every column where it does not recompute,
    [B, C, kinds]."""
    rows = columns.choices(choices, "none", np.zeros((len(choices), len(columns.rank)), np.int64))
    tables, kept = BlockTables(blocks, rows), KEPT[mode]
    assert kept is not None
    each = [tables.column(kind, "saved_bytes") - tables.column(kind, kept) for kind in blocks.kinds]
    shape = choices.schedule, choices.pp, choices.microbatches, choices.vpp
    flying = in_flight(*shape)[:, columns.rank] * (1 + blocks.runtime.allocator_slack)
    more: Floats = flying[:, :, None] * np.stack(each, axis=1)[:, None, :]
    return more


def _fewest_of_one(room: Floats, more: Floats, columns: Columns) -> Ints:
    """The fewest layers, at least one, that must recompute; all where that does not suffice. room:
    bytes that are free if all do, [B, C]."""
    held = columns.kinds[:, 0]
    without = np.floor(np.maximum(room, 0.0) / np.maximum(more[:, :, 0], 1.0) * (1 + ROUNDING))
    fewest: Ints = np.clip(held - without, 1, np.maximum(held, 1)).astype(np.int64)
    return fewest


def _fewest(room: Floats, more: Floats, columns: Columns) -> Ints:
    """The same where layers are of several kinds: the first r of a column recompute."""
    later = columns.kinds[:, None, :] - columns.prefix
    fits = np.einsum("bck,crk->bcr", more, later) <= room[:, :, None] * (1 + ROUNDING)
    fits[:, :, 0] = False
    held = columns.kinds.sum(axis=1)
    first = np.where(fits.any(axis=2), fits.argmax(axis=2), held)
    fewest: Ints = np.clip(first, 1, np.maximum(held, 1))
    return fewest
