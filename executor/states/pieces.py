"""Pieces: which range of which parameter a rank updates, by the parameter's name.

A rank updates elements own.start .. own.stop of its flat buffers: all of them, or under ZeRO the
1/d of its place among the d ranks that share them. Cut at the slots, that range is a list of

    piece = elements start .. stop of the flattened tensor-parallel part of one parameter,
            at `at` .. of every tensor that lives beside the range: master weights, moments

Some pieces are on several ranks, which do the same arithmetic to them: all of them under ZeRO 0,
and the copies that hybrid sharding leaves (dp), parameters that are whole on every tp rank (tp), a
tied matrix (first and last stage). One holder is the first of them; over all ranks the first pieces
hold every element exactly once. Only they count in the gradient norm, and only they need to be
saved.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from executor.parallel.mesh import Mesh
from executor.states.flat import Plot, Slot


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of one parameter on one rank. slot: the parameter and the rank's part of it."""

    slot: Slot
    start: int
    stop: int
    at: int
    first: bool

    def view(self, owned: Tensor) -> Tensor:
        """The piece in a tensor that holds the whole own range, [stop - start]."""
        return owned[self.at : self.at + self.stop - self.start]

    def cut(self, whole: Tensor) -> Tensor:
        """The piece's elements of a whole parameter."""
        return self.slot.cut(whole).reshape(-1)[self.start : self.stop]


def pieces(plot: Plot, own: slice, mesh: Mesh, shards: int) -> Iterator[Piece]:
    """The pieces of a rank's own range, in the buffer's order."""
    for slot in plot.slots:
        start, stop = max(slot.start, own.start), min(slot.stop, own.stop)
        if start < stop:
            first = _is_first(slot.start, plot, mesh, shards)
            yield Piece(slot, start - slot.start, stop - slot.start, start - own.start, first)


def counted(plot: Plot, own: slice, mesh: Mesh, shards: int) -> Iterator[slice]:
    """The first pieces as few ranges of the flat buffer: what lies between slots is zero."""
    bounds = (0, plot.replicated_end, plot.tied_start, plot.used_end)
    for start, stop in itertools.pairwise(bounds):
        region = slice(max(start, own.start), min(stop, own.stop))
        if region.start < region.stop and _is_first(start, plot, mesh, shards):
            yield region


def _is_first(at: int, plot: Plot, mesh: Mesh, shards: int) -> bool:
    """Whether this rank is the first holder of what lies at an element of its buffer."""
    replicated, tied = at < plot.replicated_end, plot.tied_start <= at
    return not (
        mesh.sharers(plot.experts).whole.rank >= shards
        or (replicated and mesh.coordinate("tp") > 0)
        or (tied and mesh.holds_last and not mesh.holds_first)
    )
