"""Groups: one collective for many rows whose groups differ.

Rows are gathered by (ranks, stride, groups), because a group's route through the tiers and its
algorithm depend on nothing else; each distinct group is one call over its rows' sizes. Who sends
several messages in the same groups tells them apart once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.cost.collectives import Floats
from planner.cost.distinct import distinct_rows
from planner.spec.profile import CollectiveOp

Ints = NDArray[np.int64]
Collective = Callable[[CollectiveOp, int, int, int, Floats | float], Floats]
LinesOf = Callable[[CollectiveOp, int, int], Floats]


@dataclass(frozen=True, slots=True)
class Groups:
    """The distinct groups of many rows, [D, 3], and the one of every row, [N]; None: all have the
    first."""

    distinct: Ints
    index: Ints | None

    @classmethod
    def of(cls, ranks: Ints | int, stride: Ints | int, groups: Ints | int, rows: int) -> Self:
        """Tell them apart. ranks, stride, groups: [N] or one for all."""
        columns = [np.broadcast_to(np.asarray(each), rows) for each in (ranks, stride, groups)]
        keys = np.stack([columns[0], np.where(columns[0] > 1, columns[1], 1), columns[2]], axis=1)
        first = keys[:1]
        return cls(first, None) if (keys == first).all() else cls(*distinct_rows(keys))

    def seconds(
        self, collective: Collective, lines: LinesOf | None, op: CollectiveOp, sizes: Floats
    ) -> Floats:
        """Seconds of one collective per row; 0 in a group of one.

        sizes: bytes, [N] or [N, S]. lines: of a group's formula (planner.cost.collectives), where
        nothing was measured; then all groups are one expression.
        """
        if lines is not None:
            found = np.stack([lines(op, n, s) for n, s, _ in self.distinct.tolist()])
            return _at_once(found, self.index, sizes)
        seconds = np.zeros(sizes.shape)
        for place, (n, apart, side) in enumerate(self.distinct.tolist()):
            if n > 1:
                rows = slice(None) if self.index is None else np.flatnonzero(self.index == place)
                seconds[rows] = collective(op, n, apart, side, sizes[rows])
        return seconds

    def alike(
        self, collective: Collective, lines: LinesOf | None, op: CollectiveOp, size: float
    ) -> Floats:
        """The same of one size for all rows, [N] or [1] where all rows are of one group."""
        own = type(self)(self.distinct, np.arange(len(self.distinct)))
        each = own.seconds(collective, lines, op, np.full(len(self.distinct), float(size)))
        return each if self.index is None else each[self.index]


def by_group(
    collective: Collective,
    lines: LinesOf | None,
    op: CollectiveOp,
    ranks: Ints | int,
    stride: Ints | int,
    groups: Ints | int,
    sizes: Floats,
) -> Floats:
    """Seconds of one collective per row, in a group of each row's own (see Groups)."""
    return Groups.of(ranks, stride, groups, len(sizes)).seconds(collective, lines, op, sizes)


def _at_once(lines: Floats, index: Ints | None, sizes: Floats) -> Floats:
    """The least of every row's lines. lines: of every group, [groups, 2, lines]."""
    shape = (-1, *(1,) * (sizes.ndim - 1))
    more, best = np.maximum(sizes, 1.0), np.zeros(sizes.shape)
    for number in range(lines.shape[2]):
        start, per_byte = lines[:, 0, number], lines[:, 1, number]
        if number and np.isinf(start).all():
            break
        if index is not None:
            start, per_byte = start[index], per_byte[index]
        line = more * per_byte.reshape(shape)
        line += start.reshape(shape)
        best = np.minimum(best, line, out=line) if number else line
    if not (sizes > 0).all():
        best[sizes <= 0] = 0.0
    return best
