"""Grids: what the rows of a table share.

A row keeps its states in one way (ZeRO, shards, synchronisation) and passes microbatches of one
size, both on a mesh. What it costs is made of terms that know only one of the two: weights,
gradients, reductions and updates on the one hand, what a microbatch computes, sends and keeps on
the other. Tables are products of both, nearly, so each term is computed on its own small grid and
gathered: a search has a hundred sizes and ways for every mesh.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from planner.cost.candidates import COLUMNS, Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.distinct import distinct_rows

PASSING = tuple(name for name in COLUMNS if name not in ("zero", "shard", "sync"))
"""What a microbatch depends on."""
KEEPING = tuple(name for name in COLUMNS if name not in ("micro_batch", "microbatches", "style"))
"""What the states depend on."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of a table that stand for all, and which of them stands for every row, [N]."""

    rows: Candidates
    index: Ints

    @classmethod
    def of(cls, choices: Candidates, names: tuple[str, ...]) -> Self:
        """The rows that differ in these columns. Stages must be alike in all rows."""
        keys = np.stack([getattr(choices, name) for name in names], axis=1)
        distinct, index = distinct_rows(keys)
        stands = np.zeros(len(distinct), dtype=np.int64)
        stands[index] = np.arange(len(index))
        return cls(choices.take(stands), index)


def sums_over(choose: np.ufunc, one: Floats, its: Ints, other: Floats, others: Ints) -> Floats:
    """Of every row the least or the largest over the columns of a sum of terms on two grids, [N].

    choose: np.minimum or np.maximum; its, others: the grid's row of every row.
    """
    found = one[:, 0][its] + other[:, 0][others]
    for left, right in zip(one.T[1:], other.T[1:], strict=True):
        choose(found, left[its] + right[others], out=found)
    return found
