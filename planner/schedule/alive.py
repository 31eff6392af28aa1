"""Alive: how many chunk-microbatches hold their activations, counted from the orders.

A forward adds one on its stage. A whole backward frees it; where the backward is split, the weight
gradient does, which needs both operands of the matrix products. What the input gradient alone could
free earlier (attention, norms) is left out, so the count is an upper bound in bytes. Where both
operands are more than what was kept (a checkpoint, or rows that tp gathers for the gradient only),
the input gradient adds.
"""

import numpy as np
from numpy.typing import NDArray

from planner.schedule.orders import Orders

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ADDED = np.array([1, -1, 0, -1], dtype=np.int64)
"""What an action of each compute kind adds to the chunk-microbatches held."""
HALFWAY = np.array([0, 0, 1, -1], dtype=np.int64)
"""What it adds to those between the two halves of their backward."""


def held(made: Orders) -> Ints:
    """Chunk-microbatches whose activations the rank holds after each action, [n]."""
    # every rank ends with none, so one running sum serves all ranks
    result: Ints = np.cumsum(ADDED[made.kind])
    return result


def in_flight(made: Orders) -> Ints:
    """The most chunk-microbatches alive on each rank, [ranks]."""
    result: Ints = np.maximum.reduceat(held(made), made.starts[:-1])
    return result


def stages_in_flight(made: Orders) -> Ints:
    """The most microbatches alive in each stage, [ranks*chunks]."""
    by_stage = np.argsort(made.stage, kind="stable")
    running = np.cumsum(ADDED[made.kind[by_stage]])
    starts = np.searchsorted(made.stage[by_stage], np.arange(made.stages))
    result: Ints = np.maximum.reduceat(running, starts)
    return result


def halfway(made: Orders) -> Ints:
    """The most chunk-microbatches of each rank that are between their I and W, [ranks]."""
    running = np.cumsum(HALFWAY[made.kind])
    result: Ints = np.maximum.reduceat(running, made.starts[:-1])
    return result


def changes(kind: NDArray[np.int8], each: Floats, left: Floats) -> Floats:
    """Bytes that every action adds, [n], where its microbatch holds each[a] from its forward on and
    left[a] more between its I and W."""
    result: Floats = np.choose(kind, (each, -each, left, -each - left))
    return result


def most(made: Orders, each: Floats, left: Floats) -> Floats:
    """The most that a rank holds, [ranks], where a microbatch holds each[s] in stage s and left[s]
    more between its I and W."""
    running = np.cumsum(changes(made.kind, each[made.stage], left[made.stage]))
    ends = np.append(0.0, running)[made.starts[:-1]]
    result: Floats = np.maximum.reduceat(running, made.starts[:-1]) - ends
    return result
