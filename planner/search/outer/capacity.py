"""Capacity: whether p ranks can hold all layers at all, whatever the cut and whatever recomputes.

A rank holds no fewer bytes with layers of several kinds than with those of one kind alone, and the
bytes of n layers of a kind grow with n. So with

    n_ik = the most layers of kind k that rank i can hold, when it holds nothing else and
           recomputes nothing, or all as strongly as the runtime can (bytes are linear between)

    sum_i n_ik >= layers of kind k that the model has         for every k

is necessary; with one kind of layers, one chunk per rank and recomputation that every rank chooses
for itself it is sufficient too. Bytes are those of 1f1b: no schedule of chunks in the order of
ranks has fewer microbatches in flight on any rank (interleaved, with v chunks:
(v - 1) p + 2 (p - i) - 1 >= v (p - i) chunks on rank i, since p - 1 + i (v - 2) >= 0). In a V
embedding and head share a rank and all ranks hold about the same; there every rank is given what
the last one between them has.

It costs far less than a cut, and is asked where no plan is known: then choices are many, and most
cannot hold the model.
"""

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.memory import least_passing_bytes, peak_bytes, state_bytes
from planner.cost.relaxation import least_bytes, with_columns

ELEMENTS = 400_000
"""Columns costed at once: bounds the memory, not the result. Assumed: some ten arrays of 3 MB."""

Flags = NDArray[np.bool_]


def most_that_fit(blocks: Blocks, rows: Candidates, limit_bytes: float) -> int:
    """The most layers that one rank can hold, in any row. rows: of a table with more than one
    stage."""
    fit, over = 0, blocks.model.layers + 1
    while over - fit > 1:
        held = (fit + over) // 2
        if (least_bytes(blocks, rows, held) <= limit_bytes).any():
            fit = held
        else:
            over = held
    return fit


def can_hold(blocks: Blocks, rows: Candidates, limit_bytes: float, v_shaped: bool) -> Flags:
    """Whether the ranks of every row may hold all layers, [N]. rows: of a table of 1f1b with more
    than one stage. v_shaped: whether a schedule with its chunks in a V is meant too."""
    most = most_that_fit(blocks, rows, limit_bytes)
    kinds = np.concatenate([np.arange(most + 1)[:, None] * each for each in _units(blocks)])
    # rank -1 is neither first nor last, with as much in flight as the last
    ranks = np.array([-1]) if v_shaped else np.arange(rows.pp)
    columns = np.tile(kinds, (len(ranks), 1)), np.repeat(ranks, len(kinds))
    some = max(1, ELEMENTS // len(columns[0]))
    peaks = np.concatenate([_bytes(blocks, part, *columns) for part in rows.parts(some)])
    fits = peaks.reshape(len(rows), len(ranks), len(blocks.kinds), most + 1)
    fits = np.minimum.accumulate(fits <= limit_bytes, axis=3)
    held = fits.sum(axis=3) - 1
    total = held.sum(axis=1) * (rows.pp // len(ranks))
    possible: Flags = (held >= 0).all(axis=(1, 2)) & (total >= blocks.kinds_before[-1]).all(axis=1)
    return possible


def _units(blocks: Blocks) -> Ints:
    """One layer of every kind, [kinds, kinds]."""
    return np.eye(len(blocks.kinds), dtype=np.int64)


def _bytes(blocks: Blocks, rows: Candidates, kinds: Ints, ranks: Ints) -> Floats:
    """The least peak of every column, [B, C]."""
    tables = BlockTables(blocks, with_columns(rows, kinds, ranks))
    return peak_bytes(blocks, state_bytes(tables) + least_passing_bytes(tables))
