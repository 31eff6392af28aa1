"""Family: the cuts of chunked schedules that are searched, their ways to recompute, and bounds.

All p * v chunks hold floor(L / pv) layers or one more, and

    the first chunk holds up to 1 layer less, the last up to 2 less (embedding, head and loss);
    what is left over stands in the middle, or at the front.

Layers recompute from the front of each chunk: none, the same number k of every chunk, or all.
A `Variant` is one of these cuts with one of these ways.

Time [proved]: rank i, whose lowest stage is stage i, cannot start before the first forward has
come through the stages j < i, works m times all its chunks, and (where the backward is not
split) ends with a backward of stage i, behind which those stages still wait:

    T >= max_i  sum_{j<i} (f_j + b_j) + m * sum of f + b over the chunks of rank i

b with what recomputes. Memory: a rank that holds C chunk-microbatches at its fullest keeps at
least C times what its lightest chunk keeps of one; the embedding and the head come on top, which
is left out. Both are lower bounds: a variant that exceeds either is not the one sought.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.memory import KEPT, stage_memory
from planner.cost.pipeline import in_flight
from planner.cost.stage_split import usual_counts
from planner.cost.stages import AGAIN, AGAIN_TP
from planner.schedule.orders import SPLIT, rank_of_stage
from planner.search.inner.cut import Allows
from planner.search.inner.problem import Counts
from planner.search.inner.stage_tables import modes
from planner.spec.layout import even_counts
from planner.spec.runtime import Recompute

Flags = NDArray[np.bool_]


def family(layers: int, chunks: int) -> list[Counts]:
    """The cuts that are tried, the most even first."""
    found = {even_counts(layers, chunks): None}
    for first in (0, 1):
        for last in (0, 1, 2):
            for front in (False, True):
                cut = _cut(layers, chunks, first, last, front)
                if cut is not None:
                    found.setdefault(cut)
    return list(found)


def _cut(layers: int, chunks: int, first: int, last: int, front: bool) -> Counts | None:
    base, extra = divmod(layers + first + last, chunks)
    counts = [base] * chunks
    middle = (chunks - extra) // 2
    places = range(extra) if front else range(middle, middle + extra)
    for place in places:
        counts[place] += 1
    counts[0] -= first
    counts[-1] -= last
    return tuple(counts) if min(counts) >= 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """All V variants for p ranks of v chunks.

    cuts, again: layers of every chunk, and those that recompute; mode: how, one per variant.
    kinds, some: the same by kind, [V, S, kinds]. ranks: of every chunk, [S].
    """

    cuts: tuple[Counts, ...]
    mode: tuple[Recompute, ...]
    again: tuple[Counts, ...]
    kinds: Ints
    some: Ints
    ranks: Ints

    def __len__(self) -> int:
        return len(self.cuts)

    @classmethod
    def of(cls, blocks: Blocks, one: Candidates) -> "Family":
        """The family of a table's rows."""
        chunks = one.pp * one.vpp
        cuts = (
            tuple(family(blocks.model.layers, chunks))
            if blocks.runtime.free_stages
            else (usual_counts(blocks.model, blocks.runtime, chunks),)
        )
        ways = tuple(modes(blocks.runtime)), blocks.runtime.recompute_layers != "all"
        before = tuple(map(tuple, blocks.kinds_before.tolist()))
        ranks = tuple(int(each) for each in rank_of_stage(one.schedule, one.pp, one.vpp))
        return _family(cuts, ways, before, ranks)


def over_ranks(values: Ints, ranks: Ints) -> Ints:
    """Values of chunks, [N, S, ...], summed over the chunks of every rank, [N, p, ...]."""
    total = np.zeros((len(values), int(ranks.max()) + 1, *values.shape[2:]), values.dtype)
    for stage, rank in enumerate(ranks):
        total[:, rank] += values[:, stage]
    return total


def kinds_from(before: Ints, starts: Ints, counts: Ints) -> Ints:
    """Layers of every kind of the `counts` layers from `starts` on, [N, S, kinds]. before: as
    Blocks.kinds_before."""
    kinds: Ints = before[starts + counts] - before[starts]
    return kinds


@lru_cache(maxsize=64)
def _family(
    cuts: tuple[Counts, ...],
    ways: tuple[tuple[Recompute, ...], bool],
    kinds_before: tuple[tuple[int, ...], ...],
    ranks: tuple[int, ...],
) -> Family:
    variants = [(cut, *way) for cut in cuts for way in _ways(cut, *ways)]
    held, mode, again = zip(*variants, strict=True)
    before = np.array(kinds_before)
    counts, fewer = np.array(held), np.array(again)
    starts = counts.cumsum(axis=1) - counts
    return Family(
        cuts=held,
        mode=mode,
        again=again,
        kinds=kinds_from(before, starts, counts),
        some=kinds_from(before, starts, fewer),
        ranks=np.array(ranks),
    )


def _ways(
    counts: Counts, found: tuple[Recompute, ...], some: bool
) -> Iterator[tuple[Recompute, Counts]]:
    """Ways to recompute, the fastest first."""
    yield "none", (0,) * len(counts)
    for mode in found:
        if mode == "none":
            continue
        if some:
            for k in range(1, max(counts)):
                yield mode, tuple(min(k, n) for n in counts)
        yield mode, counts


@lru_cache(maxsize=64)
def _ranked(variants: Family) -> tuple[Ints, Ints]:
    """Layers of every kind on the ranks, and those of them that recompute, [V, p, kinds]."""
    return over_ranks(variants.kinds, variants.ranks), over_ranks(variants.some, variants.ranks)


@lru_cache(maxsize=64)
def _counted(variants: Family, kinds: int) -> tuple[Floats, Floats]:
    """What the bound at each rank counts, [terms, V, p]: layers of every kind, the embedding, the
    head, and layers of every kind that recompute, mode by mode (`_modes`); on the stages before it,
    and on all chunks of the rank."""
    p = int(variants.ranks.max()) + 1
    rank, modes = np.arange(p)[None], np.array(variants.mode)

    def terms(held: Ints, some: Ints, first: Flags, last: Flags) -> Floats:
        found = [held[:, :, k] for k in range(kinds)]
        found += [np.broadcast_to(each, held.shape[:2]) for each in (first, last)]
        for mode in _modes(variants):
            own = (modes == mode)[:, None]
            found += [some[:, :, k] * own for k in range(kinds)]
        return np.stack(found).astype(np.float64)

    held, some = (
        each[:, :p].cumsum(axis=1) - each[:, :p] for each in (variants.kinds, variants.some)
    )
    before = terms(held, some, rank > 0, rank < 0)
    ends = rank == variants.ranks[0], rank == variants.ranks[-1]
    return before, terms(*_ranked(variants), *ends)


def _modes(variants: Family) -> list[Recompute]:
    """The ways to recompute that some variant has."""
    return [mode for mode in dict.fromkeys(variants.mode) if mode != "none"]


def pipeline_bounds(blocks: Blocks, table: Candidates, variants: Family) -> Floats:
    """The bound of every variant on the pipeline of every row, [N, V]: sums over what `_counted`
    counts, each with its seconds."""
    tables, held = BlockTables(blocks, table), (*blocks.kinds, "embedding", "head")
    forward, backward = (
        [tables.column(block, phase) + tables.column(block, phase + "_tp") for block in held]
        for phase in ("forward", "backward")
    )
    for mode in _modes(variants):
        fields = [field for field in (AGAIN.get(mode), AGAIN_TP.get(mode)) if field is not None]
        again = [[tables.column(kind, field) for field in fields] for kind in blocks.kinds]
        backward += [np.sum(each, axis=0) for each in again]
        forward += [np.zeros(len(table))] * len(again)
    ahead, behind = np.stack(forward, axis=1), np.stack(backward, axis=1)
    path = ahead if table.schedule in SPLIT else ahead + behind
    busy = table.microbatches[:, None] * (ahead + behind)
    before, own = _counted(variants, len(blocks.kinds))
    bounds: Floats = np.einsum("nt,tvp->nvp", path, before)
    bounds += np.einsum("nt,tvp->nvp", busy, own)
    longest: Floats = bounds.max(axis=2)
    return longest


def least_bytes(blocks: Blocks, rows: Candidates, variants: Family, which: Ints) -> Floats:
    """A lower bound on the peak of variant which[n] of row n, [N]."""
    found = np.zeros(len(rows))
    named = np.array(variants.mode)[which]
    for mode in dict.fromkeys(variants.mode):
        own = np.flatnonzero(named == mode)
        if len(own):
            found[own] = _least_bytes(blocks, rows.take(own), variants, which[own], mode)
    return found


def _least_bytes(
    blocks: Blocks, rows: Candidates, variants: Family, which: Ints, mode: Recompute
) -> Floats:
    kinds, some = variants.kinds[which], variants.some[which]
    ranked, ranked_some = (each[which] for each in _ranked(variants))
    whole = replace(
        rows,
        recompute=mode,
        counts=ranked.sum(axis=2),
        kinds=ranked,
        recomputed=ranked_some,
    )
    tables = BlockTables(blocks, whole)
    held = in_flight(rows.schedule, rows.pp, rows.microbatches, rows.vpp)
    kept = _kept(tables, kinds, some, mode)
    lightest = np.full((len(rows), rows.pp), np.inf)
    for stage, rank in enumerate(variants.ranks):
        lightest[:, rank] = np.minimum(lightest[:, rank], kept[:, stage])
    memory = stage_memory(tables)
    counted = memory.activations - (memory.instant - memory.logits - memory.buffers)
    spare = np.maximum(counted - rows.vpp * held * lightest, 0.0)
    total: Floats = memory.total - (1 + blocks.runtime.allocator_slack) * spare
    least: Floats = total.max(axis=1)
    return least


def _kept(tables: BlockTables, kinds: Ints, some: Ints, mode: Recompute) -> Floats:
    """What the layers of every chunk keep of one microbatch, [N, S]."""
    total = np.zeros(kinds.shape[:2])
    for k, kind in enumerate(tables.blocks.kinds):
        saved = tables.column(kind, "saved_bytes")[:, None]
        total += saved * kinds[:, :, k]
        field = KEPT.get(mode)
        if field is not None:
            total += (tables.column(kind, field)[:, None] - saved) * some[:, :, k]
    return total


ELEMENTS = 400_000
"""Chunks of variants bounded at once: bounds the memory, not the result. Assumed: 3 MB an array."""


def at_once(blocks: Blocks, table: Candidates) -> int:
    """How many choices of a table are bounded together."""
    variants = Family.of(blocks, table)
    return max(1, min(256, ELEMENTS // variants.kinds[:, :, 0].size))


def family_bound(
    blocks: Blocks, rows: Candidates, limit_bytes: float, upper: Floats, allows: Allows
) -> Floats:
    """The least bound on the pipeline of the variants that may fit, [N]; infinite where there is
    none below `upper`, [N]."""
    variants = Family.of(blocks, rows)
    bounds = pipeline_bounds(blocks, rows, variants)
    bounds[:, ~allowed(variants, allows)] = np.inf
    row, which = np.nonzero(bounds < upper[:, None])
    over = least_bytes(blocks, rows.take(row), variants, which) > limit_bytes
    near = np.full(bounds.shape, np.inf)
    near[row, which] = np.where(over, np.inf, bounds[row, which])
    least: Floats = near.min(axis=1)
    return least


def allowed(variants: Family, allows: Allows) -> Flags:
    """The variants whose way to recompute the user allows, [V]."""
    flags: Flags = np.array([allows(mode) for mode in variants.mode])
    return flags
