"""Chunked schedules: the best of a family of cuts, each replayed.

With v chunks per rank (or a split backward) the replay has no closed form that is exact for uneven
chunks, so a family is searched: all p * v chunks hold floor(L / pv) or one layer more, and

    the first chunk holds up to 1 layer less, the last up to 2 less (embedding, head and loss);
    what is left over stands in the middle, or at the front.

Every member whose bound is below the best step is played with every legal way to recompute. A
claim of optimality refers to this family.

Bound of a member [proved]: rank i, whose lowest stage is stage i, cannot start before the first
forward has come through the stages j < i, works m times all its chunks, and (where the backward
is not split) ends with a backward of stage i, behind which those stages still wait:

    T >= max_i  sum_{j<i} (f_j + b_j) + m * sum of f + b over the chunks of rank i
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import estimate
from planner.cost.memory import kept_bytes, stage_memory
from planner.cost.pipeline import ends_in_flight, in_flight
from planner.cost.relaxation import mixtures, with_columns
from planner.cost.stages import AGAIN
from planner.schedule.orders import SPLIT, V_SHAPED, rank_of_stage
from planner.search.inner import Allows, Cut, Found, anything
from planner.search.problem import RELATIVE, Counts
from planner.search.stage_split import usual_counts
from planner.search.stage_tables import modes
from planner.simulator.replay import replay
from planner.spec.layout import even_counts
from planner.spec.runtime import RECOMPUTES, Recompute


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


def family_bytes(blocks: Blocks, table: Candidates, mode: Recompute) -> Floats:
    """No member needs less on its fullest rank when all layers recompute so, [N].

    Rank 0 holds at least v * base - 1 layers, all of its chunks base but the first. Of the first
    chunk c microbatches are alive at most, on average over the chunks `alive`: what equal chunks
    of so many layers keep is too much by c - alive layers at most. In a V the last chunk, which
    may be smaller too, lies on rank 0: no bound, 0.
    """
    if table.schedule in V_SHAPED:
        return np.zeros(len(table))
    base = blocks.model.layers // (table.pp * table.vpp)
    layers = max(base * table.vpp - 1, table.vpp) if base > 1 else table.vpp
    mixed = mixtures(blocks, layers)
    found = []
    for held in (mixed, np.zeros_like(mixed)):
        columns = with_columns(table, held, np.zeros(len(mixed), np.int64), mode)
        tables = BlockTables(blocks, columns)
        memory = stage_memory(tables)
        found.append((memory.total, kept_bytes(tables)))
    (total, kept), (_, ends) = found
    layer = (kept - ends) / layers
    shape = table.schedule, table.pp, table.microbatches, table.vpp
    first, alive = ends_in_flight(*shape)[:, :1], in_flight(*shape)[:, :1]
    spare = 0.0 if base == 1 else np.maximum(first - alive, 0.0) * layer
    result: Floats = (total - (1 + blocks.runtime.allocator_slack) * spare).min(axis=1)
    return result


def more_recompute(blocks: Blocks, table: Candidates, limit_bytes: float) -> Floats:
    """What the pipeline takes longer, at least, because layers must recompute; infinite where not
    even that helps, [N].

    If rank 0 must, every rank recomputes one layer of every chunk (same), or all its layers (all:
    of nearly even chunks at least v * base - 2); otherwise nothing is known of the slowest rank.
    """
    again = np.zeros(len(table))
    need = family_bytes(blocks, table, "none") > limit_bytes
    if not need.any():
        return again
    strongest = modes(blocks.runtime)[-1]
    if strongest == "none":
        return np.where(need, np.inf, again)
    fits = family_bytes(blocks, table, strongest) <= limit_bytes
    tables, field = BlockTables(blocks, table), AGAIN[modes(blocks.runtime)[1]]
    assert field is not None
    least = np.min([tables.column(kind, field) for kind in blocks.kinds], axis=0)
    base = blocks.model.layers // (table.pp * table.vpp)
    ways = {"same": table.vpp, "all": max(table.vpp, base * table.vpp - 2), "any": 0}
    layers = ways[blocks.runtime.recompute_layers]
    result: Floats = np.where(need, table.microbatches * least * layers, 0.0)
    return np.where(need & ~fits, np.inf, result)


def family_bounds(blocks: Blocks, table: Candidates) -> Floats:
    """The bound of every member on the pipeline of every row, [N, members]."""
    cuts = _members(blocks, table.pp * table.vpp)
    ranks = rank_of_stage(table.schedule, table.pp, table.vpp)
    forward, backward = _chunk_seconds(blocks, table, np.array(cuts))
    path = forward if table.schedule in SPLIT else forward + backward
    busy = np.zeros((*forward.shape[:2], table.pp))
    for stage, rank in enumerate(ranks):
        busy[:, :, rank] += forward[:, :, stage] + backward[:, :, stage]
    before = np.cumsum(path[:, :, : table.pp], axis=2) - path[:, :, : table.pp]
    bounds: Floats = (before + table.microbatches[:, None, None] * busy).max(axis=2)
    return bounds


def _chunk_seconds(blocks: Blocks, table: Candidates, cuts: Ints) -> tuple[Floats, Floats]:
    """Least seconds of the forward and backward of every chunk of every cut, [N, members, S]."""
    tables = BlockTables(blocks, table)
    kinds = _kinds(blocks, cuts)
    found = []
    for phase in ("forward", "backward"):
        total = np.zeros((len(table), *cuts.shape))
        for block, counts in (
            *((kind, kinds[:, :, k]) for k, kind in enumerate(blocks.kinds)),
            ("embedding", np.arange(cuts.shape[1])[None] == 0),
            ("head", np.arange(cuts.shape[1])[None] == cuts.shape[1] - 1),
        ):
            each = tables.column(block, phase) + tables.column(block, phase + "_tp")
            total += each[:, None, None] * counts[None]
        found.append(total)
    return found[0], found[1]


def _members(blocks: Blocks, chunks: int) -> list[Counts]:
    """The cuts that a runtime may make."""
    if blocks.runtime.free_stages:
        return family(blocks.model.layers, chunks)
    return [usual_counts(blocks.model, blocks.runtime, chunks)]


def solve_chunked(
    blocks: Blocks,
    one: Candidates,
    limit_bytes: float,
    upper: float,
    allows: Allows = anything,
) -> Found:
    """The best of the family below `upper`. one: a table of one outer choice."""
    found = Found()
    cuts, bounds = _members(blocks, one.pp * one.vpp), family_bounds(blocks, one)[0]
    for place in np.argsort(bounds, kind="stable").tolist():
        if bounds[place] >= found.below(upper):
            break
        counts = cuts[place]
        done: set[Recompute] = set()
        for mode, again in _ways(blocks, counts):
            if mode in done or not allows(mode):
                continue
            if bounds[place] + _least_again(blocks, one, mode, again) >= found.below(upper):
                done.add(mode)  # more layers that recompute take longer still
                continue
            table = with_chunks(blocks, one, counts, mode, again)
            if stage_memory(BlockTables(blocks, table)).total.max() > limit_bytes:
                continue
            # more layers that recompute so are slower, and with none no other way is faster
            done |= {mode} if mode != "none" else set(RECOMPUTES)
            made = estimate(blocks, table)
            if made.bound_seconds[0] < found.below(upper):
                step = replay(blocks, table, made, 0).step_seconds
                found.replayed += 1
                if step < found.below(upper) * (1 - RELATIVE):
                    found.best = Cut(step, counts, mode, again)
    return found


def _least_again(blocks: Blocks, one: Candidates, mode: Recompute, again: Counts) -> float:
    """What every rank computes again in a step, at least: the fewest layers of a rank that do."""
    field = AGAIN.get(mode)
    if field is None:
        return 0.0
    layers = np.bincount(rank_of_stage(one.schedule, one.pp, one.vpp), again, minlength=one.pp)
    least = min(float(BlockTables(blocks, one).column(kind, field)[0]) for kind in blocks.kinds)
    return float(one.microbatches[0]) * least * float(layers.min())


def _ways(blocks: Blocks, counts: Counts) -> Iterator[tuple[Recompute, Counts]]:
    """Ways to recompute, the fastest first."""
    none = (0,) * len(counts)
    yield "none", none
    for mode in modes(blocks.runtime):
        if mode == "none":
            continue
        if blocks.runtime.recompute_layers != "all":
            for k in range(1, max(counts)):
                yield mode, tuple(min(k, n) for n in counts)
        yield mode, counts


def with_chunks(
    blocks: Blocks, one: Candidates, counts: Counts, mode: Recompute, again: Counts
) -> Candidates:
    """The plan of a cut as a table of one row."""
    ranks = np.array(rank_of_stage(one.schedule, one.pp, one.vpp))
    cut = np.array([counts])
    held = _kinds(blocks, cut)
    some = _kinds(blocks, np.array([again]), cut.cumsum(axis=1) - cut)
    if mode == "none":
        some = np.zeros_like(some)
    if one.vpp == 1:
        return _holding(one, mode, held, some)
    chunk = np.repeat(np.arange(one.vpp), one.pp)
    apart = replace(_holding(one, mode, held, some), stage=ranks, chunk=chunk)
    whole = [_summed(values, ranks, one.pp) for values in (held, some)]
    return replace(_holding(one, mode, *whole), chunks=apart)


def _holding(one: Candidates, mode: Recompute, held: Ints, some: Ints) -> Candidates:
    return replace(
        one, recompute=mode, counts=held.sum(axis=2), kinds=held, recomputed=some, stage=None
    )


def _kinds(blocks: Blocks, counts: Ints, starts: Ints | None = None) -> Ints:
    """Layers of every kind of the `counts` layers from `starts` on, [members, stages, kinds]."""
    begin = counts.cumsum(axis=1) - counts if starts is None else starts
    result: Ints = blocks.kinds_before[begin + counts] - blocks.kinds_before[begin]
    return result


def _summed(values: Ints, ranks: Ints, p: int) -> Ints:
    total = np.zeros((1, p, values.shape[2]), dtype=np.int64)
    np.add.at(total[0], ranks, values[0])
    return total
