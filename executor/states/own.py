"""Own: the part of a unit's flat buffers that this rank updates, and what it keeps for that.

A unit of P elements is shared by s ranks; rank i of them owns the elements i*P/s .. (i+1)*P/s.
16-bit weights have a master copy in the gradients' wider format, which AdamW updates; the weights
are its rounding. Other weights are their own master.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from executor.parallel.mesh import Mesh
from executor.states.flat import Plot
from executor.states.pieces import Piece, counted, pieces


@dataclass(frozen=True, slots=True)
class Own:
    """Tensors [P/s] of the own range, and which parameters lie in them.

    weights, gradients: in their formats. replicated, tied: where the range holds parameters that
    are whole on every tp rank, and the tied matrix. counted: what counts in the gradient norm.
    """

    weights: Tensor
    gradients: Tensor
    master: Tensor
    pieces: tuple[Piece, ...]
    replicated: slice
    tied: slice
    counted: tuple[slice, ...]

    def publish(self) -> None:
        """Round the master into the weights."""
        if self.master.dtype != self.weights.dtype:
            self.weights.copy_(self.master.detach())


def own_range(size: int, index: int, shards: int) -> slice:
    """The elements that rank `index` of the shards owns."""
    each = size // shards
    return slice(index * each, (index + 1) * each)


def make_own(
    plot: Plot, mesh: Mesh, held: slice, shards: int, weights: Tensor, gradients: Tensor
) -> Own:
    """What a rank owns of a placed unit: the range `held`, whose tensors these are."""
    same = weights.dtype == gradients.dtype
    master = torch.nn.Parameter(weights if same else weights.to(gradients.dtype))
    master.grad = gradients
    return Own(
        weights,
        gradients,
        master,
        tuple(pieces(plot, held, mesh, shards)),
        _within(0, plot.replicated_end, held),
        _within(plot.tied_start, plot.used_end, held),
        tuple(_within(each.start, each.stop, held) for each in counted(plot, held, mesh, shards)),
    )


def _within(start: int, stop: int, held: slice) -> slice:
    """The part of start .. stop that lies in a held range, from its beginning."""
    start, stop = max(start, held.start), min(stop, held.stop)
    return slice(start - held.start, max(start, stop) - held.start)
