"""Distinct rows of a table of whole numbers, and which of them every row is.

Rows become one number each, digits of a mixed radix, because numbers sort many times faster than
rows do (np.unique over axis 0 compares byte strings).
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST = 2**62
"""Numbers stay below it: half of what a signed 64-bit number holds."""


def distinct_rows(rows: Ints) -> tuple[Ints, Ints]:
    """The distinct rows in ascending order, [D, C], and the place of every row in them, [N].

    rows: [N, C], any whole numbers.
    """
    if not rows.size:
        return rows[:1], np.zeros(len(rows), dtype=np.int64)
    low = rows.min(axis=0)
    spans = [int(span) for span in rows.max(axis=0) - low + 1]
    numbers, size = np.zeros(len(rows), dtype=np.int64), 1
    for column, span in enumerate(spans):
        if span == 1:
            continue
        if size * span > MOST:  # count the prefixes there are, not those there could be
            distinct, numbers = np.unique(numbers, return_inverse=True)
            size = len(distinct)
        numbers, size = numbers * span + (rows[:, column] - low[column]), size * span
    _, first, index = np.unique(numbers, return_index=True, return_inverse=True)
    return rows[first], index.reshape(-1)
