"""Chunked schedules: the best of a family of cuts, each replayed.

With v chunks per rank (or a split backward) the replay has no closed form that is exact for uneven
chunks, so a family of nearly even ones is searched (planner.search.inner.family): every variant
whose bounds allow it is played, in the order of its bound. A claim of optimality refers to this
family.
"""

from dataclasses import replace

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.estimate import estimate
from planner.cost.memory import stage_memory
from planner.schedule.orders import rank_of_stage
from planner.search.inner.cut import Allows, Cut, Found, anything
from planner.search.inner.family import (
    Family,
    allowed,
    kinds_from,
    least_bytes,
    over_ranks,
    pipeline_bounds,
)
from planner.search.inner.problem import RELATIVE, Counts
from planner.simulator.replay import replay
from planner.spec.runtime import Recompute


def solve_chunked(
    blocks: Blocks,
    one: Candidates,
    limit_bytes: float,
    upper: float,
    allows: Allows = anything,
) -> Found:
    """The best of the family below `upper`. one: a table of one outer choice."""
    found, variants = Found(), Family.of(blocks, one)
    bounds = pipeline_bounds(blocks, one, variants)[0]
    near = np.flatnonzero((bounds < upper) & allowed(variants, allows))
    least = least_bytes(blocks, one.take(np.zeros(len(near), np.int64)), variants, near)
    near = near[least <= limit_bytes]
    slower: set[tuple[Counts, Recompute]] = set()
    for place in near[np.argsort(bounds[near], kind="stable")].tolist():
        if bounds[place] >= found.below(upper):
            break
        counts, mode = variants.cuts[place], variants.mode[place]
        again = variants.again[place]
        if slower & {(counts, mode), (counts, "none")}:
            continue
        table = with_chunks(blocks, one, counts, mode, again)
        if stage_memory(BlockTables(blocks, table)).total.max() > limit_bytes:
            continue
        # more layers that recompute so are slower, and with none no other way is faster
        slower.add((counts, mode))
        made = estimate(blocks, table)
        if made.bound_seconds[0] < found.below(upper):
            step = replay(blocks, table, made, 0).step_seconds
            found.replayed += 1
            if step < found.below(upper) * (1 - RELATIVE):
                found.best = Cut(step, counts, mode, again)
    return found


def with_chunks(
    blocks: Blocks, one: Candidates, counts: Counts, mode: Recompute, again: Counts
) -> Candidates:
    """The plan of a cut as a table of one row."""
    ranks = np.array(rank_of_stage(one.schedule, one.pp, one.vpp))
    cut, before = np.array([counts]), blocks.kinds_before
    starts = cut.cumsum(axis=1) - cut
    held, some = (kinds_from(before, starts, each) for each in (cut, np.array([again])))
    if one.vpp == 1:
        return _holding(one, mode, held, some)
    chunk = np.repeat(np.arange(one.vpp), one.pp)
    apart = replace(_holding(one, mode, held, some), stage=ranks, chunk=chunk)
    whole = [over_ranks(values, ranks) for values in (held, some)]
    return replace(_holding(one, mode, *whole), chunks=apart)


def _holding(one: Candidates, mode: Recompute, held: Ints, some: Ints) -> Candidates:
    return replace(
        one, recompute=mode, counts=held.sum(axis=2), kinds=held, recomputed=some, stage=None
    )
