"""Data parallelism and the optimiser on flat buffers, with ZeRO stage 0 or 1.

d = dp * cp ranks hold the same weights w; g is the sum of the gradients of the rank's microbatches.

    reduce        replicated part of g summed over tp; tied matrix summed over {first, last} stage
                  ZeRO 0: g <- all-reduce over dp      ZeRO 1: own 1/d of g <- reduce-scatter
    update        |g|^2 over all parameters once; AdamW on w (ZeRO 1: on the own 1/d of w, then
                  all-gather of w); g <- 0

ZeRO 1 (Rajbhandari et al. 2020): the optimiser's states exist once per dp group. 16-bit weights
have an fp32 master copy, divided like the states, that AdamW updates; w is its rounding.

Norm: every rank adds sum_i c_i |g_i|^2 of its pieces and one all-reduce over all ranks ends it,
c = 1/(ranks that hold the same sum): 1/tp for the replicated part, 1/d under ZeRO 0, 0 for the
last stage's copy of a tied matrix.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from executor import collectives
from executor.flat import Flat, Plot
from executor.mesh import Mesh


class Updater:
    """Reduces the gradients of a rank's stages and updates their weights."""

    def __init__(self, flat: Flat, mesh: Mesh, zero: int, learning_rate: float):
        self.flat, self.mesh = flat, mesh
        self.shards = mesh.replicas if zero else 1
        own = _own(flat.plot.size, mesh.replica, self.shards)
        self.own_weights, self.own_gradients = flat.weights[own], flat.gradients[own]
        self.master = self._make_master()
        self.master.grad = self.own_gradients
        self.adamw = torch.optim.AdamW([self.master], lr=learning_rate, fused=True)
        self.pieces = list(_pieces(flat.plot, mesh, own, self.shards))

    def _make_master(self) -> Tensor:
        """What AdamW updates: the weights themselves, or a wider copy of 16-bit ones."""
        same = self.own_weights.dtype == self.own_gradients.dtype
        own = self.own_weights if same else self.own_weights.to(self.own_gradients.dtype)
        return torch.nn.Parameter(own)

    def reduce(self) -> None:
        """Sum the gradients over all ranks that computed a share of them."""
        gradients, plot = self.flat.gradients, self.flat.plot
        if self.mesh.tp is not None and plot.replicated_end:
            collectives.all_reduce(gradients[: plot.replicated_end], self.mesh.tp)
        if self.mesh.tied is not None and plot.tied_start < plot.used_end:
            collectives.all_reduce(gradients[plot.tied_start : plot.used_end], self.mesh.tied)
        if self.shards > 1:
            collectives.reduce_scatter(self.own_gradients, gradients, self.mesh.dp)
        else:
            collectives.all_reduce(gradients, self.mesh.dp)

    def update(self) -> Tensor:
        """One AdamW step; zeroes the gradients. Returns the gradient norm, a scalar."""
        norm = self._norm()
        self.adamw.step()
        with torch.no_grad():
            if self.master.dtype != self.own_weights.dtype:
                self.own_weights.copy_(self.master)
            if self.shards > 1:
                collectives.all_gather(self.flat.weights, self.own_weights, self.mesh.dp)
        self.flat.gradients.zero_()
        return norm

    def _norm(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.flat.gradients.device)
        for piece, share in self.pieces:
            total += torch.linalg.vector_norm(self.flat.gradients[piece]).double().square() * share
        collectives.all_reduce(total, self.mesh.everyone)
        return total.sqrt()

    def state(self) -> list[Tensor]:
        """Every tensor that lives on between steps, except the flat buffers."""
        states = [s for s in self.adamw.state.get(self.master, {}).values() if torch.is_tensor(s)]
        return [self.master, *states]


def _own(size: int, index: int, shards: int) -> slice:
    each = size // shards
    return slice(index * each, (index + 1) * each) if shards > 1 else slice(0, size)


def _pieces(plot: Plot, mesh: Mesh, own: slice, shards: int) -> Iterator[tuple[slice, float]]:
    """The pieces of the own gradients that count in the norm, with their share."""
    layout = mesh.layout
    copy_of_tied = mesh.holds_last and not mesh.holds_first
    end = plot.tied_start if copy_of_tied else plot.used_end
    once = 1.0 if shards > 1 else 1.0 / mesh.replicas
    bounds = ((0, plot.replicated_end, once / layout.tp), (plot.replicated_end, end, once))
    for start, stop, share in bounds:
        start, stop = max(start, own.start), min(stop, own.stop)
        if start < stop:
            yield slice(start, stop), share
