"""Boxes: a range of a flattened tensor as rectangles, which is how checkpoints name what they hold.

Elements a .. b (in row-major order) of a tensor [n0, n1, ...] are the end of one row, whole rows,
and the beginning of another; the two partial rows are cut again, dim by dim:

    a ... | ##     at most 2 * dims - 1 boxes, each contiguous, in the order of the elements
    ######|###
    ##    | ... b

A piece (executor.states.pieces) is such a range of a rank's tensor-parallel part; its boxes stand
in the coordinates of the whole parameter, so that any other division finds what it needs by
overlap.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

from executor.states.pieces import Piece

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a tensor. start: its first element's place in the range it was cut from."""

    offsets: Sizes
    sizes: Sizes
    start: int

    @property
    def stop(self) -> int:
        """The place after its last element in the range."""
        return self.start + math.prod(self.sizes)


def boxes(shape: Sizes, start: int, stop: int) -> Iterator[Box]:
    """The elements start .. stop of a tensor, in order."""
    for offsets, sizes, first in _cut(shape, start, stop):
        yield Box(offsets, sizes, first - start)


def of_piece(piece: Piece) -> Iterator[Box]:
    """A piece's boxes in the whole parameter; `start` counts from the piece's own."""
    slot = piece.slot
    by = [0] * len(slot.shape)
    for part in () if slot.part is None else slot.part.slices:
        by[part.dim] += part.start
    for box in boxes(slot.shape, piece.start, piece.stop):
        yield replace(box, offsets=tuple(map(operator.add, box.offsets, by)))


def _cut(shape: Sizes, start: int, stop: int) -> Iterator[tuple[Sizes, Sizes, int]]:
    """Offsets, sizes and first element of each box."""
    if len(shape) == 1:
        yield (start,), (stop - start,), start
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row
    if last < first:
        yield from _within(shape, last, start, stop)
        return
    if start < first * row:
        yield from _within(shape, first - 1, start, first * row)
    if first < last:
        zeros = (0,) * (len(shape) - 1)
        yield (first, *zeros), (last - first, *shape[1:]), first * row
    if last * row < stop:
        yield from _within(shape, last, last * row, stop)


def _within(shape: Sizes, index: int, start: int, stop: int) -> Iterator[tuple[Sizes, Sizes, int]]:
    """A range inside one row."""
    origin = index * math.prod(shape[1:])
    for offsets, sizes, first in _cut(shape[1:], start - origin, stop - origin):
        yield (index, *offsets), (1, *sizes), first + origin
