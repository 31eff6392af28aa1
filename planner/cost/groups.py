"""Groups: one collective for many rows whose groups differ.

Rows are gathered by (ranks, stride, groups), because a group's route through the tiers and its
algorithm depend on nothing else; each distinct group is one call over its rows' sizes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from planner.cost.collectives import Floats
from planner.cost.distinct import distinct_rows
from planner.spec.profile import CollectiveOp

Ints = NDArray[np.int64]
Collective = Callable[[CollectiveOp, int, int, int, Floats], Floats]
LinesOf = Callable[[CollectiveOp, int, int], Floats]


def by_group(
    collective: Collective,
    lines: LinesOf | None,
    op: CollectiveOp,
    ranks: Ints | int,
    stride: Ints | int,
    groups: Ints | int,
    sizes: Floats,
) -> Floats:
    """Seconds of one collective per row, in a group of each row's own; 0 in a group of one.

    ranks, stride, groups: [N] or one for all; sizes: bytes, [N] or [N, S]. lines: of a group's
    formula (planner.cost.collectives), where nothing was measured; then all groups are one
    expression.
    """
    columns = [np.broadcast_to(np.asarray(each), len(sizes)) for each in (ranks, stride, groups)]
    keys = np.stack([columns[0], np.where(columns[0] > 1, columns[1], 1), columns[2]], axis=1)
    first = keys[:1]
    if (keys == first).all():
        distinct, index = first, None
    else:
        distinct, index = distinct_rows(keys)
    if lines is not None:
        return _at_once(np.stack([lines(op, n, s) for n, s, _ in distinct.tolist()]), index, sizes)
    seconds = np.zeros(sizes.shape)
    for place, (n, apart, side) in enumerate(distinct.tolist()):
        if n > 1:
            rows = slice(None) if index is None else np.flatnonzero(index == place)
            seconds[rows] = collective(op, n, apart, side, sizes[rows])
    return seconds


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
        line = start.reshape(shape) + more * per_byte.reshape(shape)
        best = np.minimum(best, line) if number else line
    return np.where(sizes > 0, best, 0.0)
