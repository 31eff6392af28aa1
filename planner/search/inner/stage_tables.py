"""Stage tables: what one pipeline rank would cost with any layers, for a few outer choices.

For rank i of p, layers [u, u + n) and a way to recompute, planner.cost gives the seconds of a
microbatch, the exposed reduction, the update and the peak bytes; columns of Candidates are such
ranks. Where the peak exceeds the limit the seconds are infinite, so memory is no constraint of
the search behind (planner.search.inner.problem). Layers of one kind are counted: u does not matter.

Transfers that hold their rank are part of what receives them: f + hop behind the first stage,
b + hop before the last. Everything up to the update waits for the slowest replica, so its seconds
are (1 + wait) times as long.

Ways to recompute (`Way`): a mode for the first `layers` layers of every stage; or, with layers
None, of each stage the fewest that fit, from its front. With r >= 1 of n layers recomputing a rank
holds, beside what it holds if all do, what the others keep,

    peak(r) = peak(n) + (1 + slack) * in flight * sum of (saved - kept) over the n - r others

so the fewest is a formula. For layers of one kind it is the cheapest choice, since every layer
costs the same; for several kinds the best of those that recompute from the front.

What recomputes differs from rank to rank, but little depends on it: the columns are costed on three
ranks only (first, last, between: `Segments`), and what the chosen layers add or save is added.
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import wait_share
from planner.search.inner.columns import Columns
from planner.search.inner.problem import Problem, ScheduleName
from planner.search.inner.segments import Segments
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
    """B outer choices of one table with the seconds of columns, [B, C] each; again: layers that
    recompute."""

    choices: Candidates
    way: Way
    columns: Columns
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
            forward=self.spread("forward", row),
            backward=self.spread("backward", row),
            reduce=self.spread("reduce", row),
            update=self.spread("update", row),
            fixed=self.fixed,
        )

    def spread(self, name: str, row: int) -> Floats:
        """Seconds of one choice, [p, U, N + 1]; infinite where there is no such stage."""
        seconds: Floats = self.columns.spread(getattr(self, name)[row][None])[0]
        return seconds

    def recomputed(self, row: int, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Layers of each stage that recompute in a plan."""
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = self.columns.place
        if place.shape[1] == 1:
            starts = np.zeros_like(starts)
        found = place[np.arange(len(counts)), starts, np.array(counts)]
        return tuple(int(each) for each in np.where(found >= 0, self.again[row, found], 0))


def modes(runtime: Runtime) -> list[Recompute]:
    """The recompute modes that differ: the core alone is nothing where scores are never stored."""
    nothing = runtime.flash_attention and runtime.selective == "core"
    return [mode for mode in runtime.recompute if mode != "selective" or not nothing]


def stage_tables(
    blocks: Blocks, choices: Candidates, way: Way, limit_bytes: float, most: int
) -> StageTables:
    """Tables with up to `most` layers per stage. choices: rows of one table of the space."""
    columns = Columns.of(blocks, choices.pp, min(most, blocks.model.layers))
    segments = Segments(blocks, choices, columns)
    again, peaks = _again(segments, way, limit_bytes)
    over = peaks > limit_bytes
    if way.forced is not None:
        over |= (columns.rank == way.forced) & (again == 0)
    forward, backward, reduce = segments.seconds(way.mode, again)
    hop, later = segments.hop[:, None], 1 + wait_share(blocks, choices)[:, None]
    forward = (forward + hop * (columns.rank > 0)) * later
    backward = (backward + hop * (columns.rank < columns.ranks - 1)) * later
    return StageTables(
        choices=choices,
        way=way,
        columns=columns,
        forward=forward,
        backward=np.where(over, np.inf, backward),
        reduce=reduce * later,
        update=segments.update,
        again=again,
        fixed=blocks.runtime.step_seconds,
    )


def _again(segments: Segments, way: Way, limit: float) -> tuple[Ints, Floats]:
    """Layers of every column that recompute, and what it then holds, [B, C]."""
    columns, rows = segments.columns, len(segments.choices)
    held: Ints = np.broadcast_to(columns.held[None], (rows, len(columns.rank)))
    none, mode = np.zeros_like(held), way.mode
    if mode == "none":
        return none, segments.peak("none", none)
    if way.layers is not None:
        fixed: Ints = np.minimum(held, way.layers)
        return fixed, segments.peak(mode, fixed)
    plain, every = segments.peak("none", none), segments.peak(mode, held)
    fewest = _fewest_of_one if columns.kinds.shape[1] == 1 else _fewest
    found = fewest(limit - every, segments, mode)
    found = np.where((plain <= limit) & (columns.rank != way.forced), 0, found)
    found = np.minimum(found, held)
    peaks = segments.peak(mode, found)
    worse = (peaks > limit) & (found < held)
    if worse.any():  # the formula is exact but for rounding
        found = np.where(worse, found + 1, found)
        peaks = segments.peak(mode, found)
    return found, peaks


def _fewest_of_one(room: Floats, segments: Segments, mode: Recompute) -> Ints:
    """The fewest layers, at least one, that must recompute; all where that does not suffice. room:
    bytes that are free if all do, [B, C]."""
    held = segments.columns.held
    more = segments.flying * segments.saves(mode)
    without = np.floor(np.maximum(room, 0.0) / np.maximum(more, 1.0) * (1 + ROUNDING))
    fewest: Ints = np.clip(held - without, 1, np.maximum(held, 1)).astype(np.int64)
    return fewest


def _fewest(room: Floats, segments: Segments, mode: Recompute) -> Ints:
    """The same where layers are of several kinds: the first r of a column recompute."""
    columns, rows = segments.columns, len(room)
    p, each = columns.ranks, columns.segments
    prefix = columns.prefix[:each]
    later = (columns.kinds[:each, None, :] - prefix).astype(np.float64)
    more = np.einsum("bk,qrk->bqr", segments.saves(mode), later)
    roomy = room.reshape(rows, p, each, 1) * (1 + ROUNDING)
    fits = more[:, None] * segments.flying.reshape(rows, p, each, 1) <= roomy
    fits[..., 0] = False
    fits[..., -1] = True
    first = fits.argmax(axis=3).reshape(rows, -1)
    fewest: Ints = np.clip(first, 1, np.maximum(columns.held, 1))
    return fewest
