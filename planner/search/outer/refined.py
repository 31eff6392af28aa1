"""Refined bounds: what no cut can beat once every rank has to fit its layers into memory.

t_i(n): seconds of a microbatch on rank i with n layers and the fewest of them that must recompute
(the least over the layers where the stage may start). In a plan below the best step known,

    tau = the least tau such that the ranks hold all layers with t_i(n_i) <= tau    <= max_i t_i
    theta = sum_i t_i(0) + (t of all layers alone)                                   <= sum_i t_i

and with m microbatches on p ranks (planner.search.inner.bounds)

    1f1b    m * tau;   m > p: theta + (m - (p+1)/2) * tau, (m+p-1)/p * theta;
            m <= p: theta, m/p * theta
    gpipe   theta + (m - 1) * tau

before the reduction of the first rank and the update of one that holds ceil(L/p) layers. tau is
found by bisection; its lower end is a bound. It is infinite where the ranks cannot hold all layers,
whatever step is known. No rank holds more layers than the seconds below the best step known allow,
nor, before one is known, than the least bytes of so many layers allow (planner.cost.relaxation);
tables go no further. Where layers are of several kinds it matters where a
stage starts; then both are exact, with sum_i t_i(u_i, n_i) in place of theta, by the recursions of
planner.search.inner.completion for all rows at once.
"""

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats
from planner.search.inner.stage_tables import StageTables, Way, modes, stage_tables
from planner.search.outer.capacity import most_that_fit

ELEMENTS = 200_000
"""Stages with layers that are tabulated at once: bounds the memory, not the result."""
HALVINGS = 40


def at_once(blocks: Blocks, table: Candidates) -> int:
    """How many choices of a table are bounded together."""
    return min(64, _together(blocks, table.pp, 2 * -(-blocks.model.layers // table.pp) + 2))


def _together(blocks: Blocks, p: int, most: int) -> int:
    """How many choices with so many layers per rank are tabulated at once."""
    starts = 1 if len(blocks.kinds) == 1 else blocks.model.layers + 1
    return max(1, ELEMENTS // (p * (most + 1) * starts))


def refined_bound(blocks: Blocks, rows: Candidates, limit_bytes: float, upper: Floats) -> Floats:
    """Lower bounds on the step of every row, [B]; infinite where no plan is below `upper`."""
    most = most_layers(blocks, rows, upper, limit_bytes)
    some = _together(blocks, rows.pp, most)
    parts = [_bounds(blocks, part, limit_bytes, most) for part in rows.parts(some)]
    return np.concatenate(parts)


def _bounds(blocks: Blocks, rows: Candidates, limit_bytes: float, most: int) -> Floats:
    """The bounds of rows that are tabulated together."""
    tables = (stage_tables(blocks, rows, way, limit_bytes, most) for way in _ways(blocks))
    result: Floats = np.min([_bound(blocks, each) for each in tables], axis=0)
    return result


def _ways(blocks: Blocks) -> list[Way]:
    """Ways to recompute of which each legal one is a special case or worse."""
    runtime, layers = blocks.runtime, blocks.model.layers
    found = [Way(mode, layers if mode != "none" else 0) for mode in modes(runtime)]
    if runtime.recompute_layers == "all" or len(found) == 1:
        return found
    return [Way(way.mode, None) for way in found if way.mode != "none"]


def most_layers(blocks: Blocks, rows: Candidates, upper: Floats, limit_bytes: float) -> int:
    """The most layers that a stage of a plan below `upper` [B] can hold, of any row."""
    if not np.isfinite(upper).all():
        return most_that_fit(blocks, rows, limit_bytes)
    tables = BlockTables(blocks, rows)
    each = np.min(
        [tables.column(kind, "forward") + tables.column(kind, "backward") for kind in blocks.kinds],
        axis=0,
    )
    most = np.floor(upper / (rows.microbatches * each)) + 1
    return int(min(most.max(), blocks.model.layers))


def _bound(blocks: Blocks, tables: StageTables) -> Floats:
    rows, layers, columns = tables.choices, blocks.model.layers, tables.columns
    p, m = rows.pp, rows.microbatches
    least, theta = _of_stages(columns.spread(tables.forward + tables.backward), layers)
    possible = np.isfinite(least)
    tau = np.where(possible, least, 0.0)
    if rows.schedule == "gpipe":
        pipeline = theta + (m - 1) * tau
    else:
        many = np.maximum(theta + (m - (p + 1) / 2) * tau, (m + p - 1) / p * theta)
        few = np.maximum(theta, m * theta / p)
        pipeline = np.maximum(m * tau, np.where(m > p, many, few))
    share = columns.held == min(-(-layers // p), columns.place.shape[2] - 1)
    update = tables.update[:, share].min(axis=1)
    after = tables.reduce[:, columns.rank == 0].min(axis=1) + update + tables.fixed
    result: Floats = np.where(possible, pipeline + after, np.inf)
    return result


def _of_stages(seconds: Floats, layers: int) -> tuple[Floats, Floats]:
    """tau (infinite where no cut fits) and theta of every row, [B]. seconds: [B, p, U, N + 1]."""
    if seconds.shape[2] == 1:
        alike = seconds[:, :, 0]
        return _least_maximum(alike, layers), _all_layers(alike, layers)
    rows, stages, _, most = seconds.shape
    before = np.arange(layers + 1)[:, None] - np.arange(most)[None, :]
    starts = np.maximum(before, 0)
    top = np.full((rows, layers + 1), np.inf)
    top[:, 0] = 0.0
    total = top.copy()
    for i in range(stages):
        # every segment of stage i by the layer behind it
        each = np.where(before < 0, np.inf, seconds[:, i, starts, np.arange(most)])
        top = np.maximum(top[:, starts], each).min(axis=2)
        total = (total[:, starts] + each).min(axis=2)
    least = total[:, -1]
    return top[:, -1], np.where(np.isfinite(least), least, 0.0)


def _all_layers(seconds: Floats, layers: int) -> Floats:
    """theta of every row; 0 where an empty rank does not fit, [B]."""
    alone, some = seconds[:, :, :1], seconds[:, :, 1:]
    known = np.isfinite(some) & np.isfinite(alone)
    more = np.where(known, some, np.inf) - np.where(np.isfinite(alone), alone, 0.0)
    per_layer = (more / np.arange(1, seconds.shape[2])).min(axis=(1, 2), initial=np.inf)
    usable = np.isfinite(alone).all(axis=(1, 2)) & np.isfinite(per_layer)
    whole = np.where(np.isfinite(alone), alone, 0.0).sum(axis=(1, 2))
    return np.where(usable, whole + layers * np.where(usable, per_layer, 0.0), 0.0)


def _least_maximum(seconds: Floats, layers: int) -> Floats:
    """tau of every row, infinite where the ranks cannot hold all layers, [B]."""
    # more layers may hide more communication and take less time, so: the least of so many or more
    seconds = np.minimum.accumulate(seconds[:, :, ::-1], axis=2)[:, :, ::-1]

    def holds(tau: Floats) -> Floats:
        allowed = np.minimum.accumulate(seconds <= tau[:, None, None], axis=2)
        held = allowed.sum(axis=2) - 1
        return np.where((held < 0).any(axis=1), -1, held.sum(axis=1))

    finite = np.where(np.isfinite(seconds), seconds, 0.0)
    high = finite.max(axis=(1, 2))
    possible = holds(high) >= layers
    low = np.zeros(len(seconds))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = holds(middle) >= layers
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    return np.where(possible, low, np.inf)
