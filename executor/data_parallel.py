"""Data parallelism and the optimiser on flat buffers, with ZeRO stage 0 or 1.

d = dp * cp ranks hold the same weights w; g is the sum of the gradients of the rank's microbatches.

    reduce        replicated part of g summed over tp; tied matrix summed over {first, last} stage
                  ZeRO 0: g <- all-reduce over dp      ZeRO 1: own 1/d of g <- reduce-scatter
    update        |g|^2 over all parameters once; AdamW on w (ZeRO 1: on the own 1/d of w, then
                  all-gather of w); g <- 0

ZeRO 1 (Rajbhandari et al. 2020): the optimiser's states exist once per dp group. 16-bit weights
have an fp32 master copy, divided like the states, that AdamW updates; w is its rounding.

Norm: every rank adds |g_i|^2 of the pieces that it is the first to hold (executor.pieces) and one
all-reduce over all ranks ends it, in fp64. Clipping by it is torch's clip_grad_norm_:

    g <- g * min(1, clip_norm / (|g| + 1e-6))

one more pass over the own gradients, which the planner does not cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from executor import collectives
from executor.flat import Flat
from executor.mesh import Mesh
from executor.pieces import Piece, counted, pieces

NORM_FLOOR = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to the norm that it divides by."""


@dataclass(frozen=True, slots=True)
class Owned:
    """What outlives a step of one piece: views [stop - start] that may be read and written.

    weight: what AdamW updates, the fp32 master of 16-bit weights. exp_avg, exp_avg_sq: its moments.
    """

    piece: Piece
    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class Updater:
    """Reduces the gradients of a rank's stages and updates their weights.

    clip_norm: gradients of a larger norm are scaled down to it; none are without it.
    """

    def __init__(
        self,
        flat: Flat,
        mesh: Mesh,
        zero: int,
        learning_rate: float,
        clip_norm: float | None = None,
    ):
        self.flat, self.mesh, self.clip_norm = flat, mesh, clip_norm
        self.shards = mesh.replicas if zero else 1
        own = _own(flat.plot.size, mesh.replica, self.shards)
        self.own_weights, self.own_gradients = flat.weights[own], flat.gradients[own]
        self.master = self._make_master()
        self.master.grad = self.own_gradients
        self.adamw = torch.optim.AdamW([self.master], lr=learning_rate, fused=True)
        self.adamw.state[self.master] = _fresh(self.master)
        self.pieces = tuple(pieces(flat.plot, own, mesh, self.shards))
        self._counted = tuple(counted(flat.plot, own, mesh, self.shards))

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
        """One AdamW step; zeroes the gradients. Returns their norm before clipping, a scalar."""
        norm = self._norm()
        if self.clip_norm is not None:
            scale = (self.clip_norm / (norm + NORM_FLOOR)).clamp_(max=1.0)
            self.own_gradients.mul_(scale.to(self.own_gradients.dtype))
        self.adamw.step()
        self.publish()
        self.flat.gradients.zero_()
        return norm

    def publish(self) -> None:
        """Give all ranks the weights that this one owns: after a step, or after writing `owned`."""
        if self.master.dtype != self.own_weights.dtype:
            self.own_weights.copy_(self.master.detach())
        if self.shards > 1:
            collectives.all_gather(self.flat.weights, self.own_weights, self.mesh.dp)

    def _norm(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.flat.gradients.device)
        for region in self._counted:
            total += torch.linalg.vector_norm(self.flat.gradients[region]).double().square()
        collectives.all_reduce(total, self.mesh.everyone)
        return total.sqrt()

    @property
    def steps(self) -> Tensor:
        """How many steps AdamW has taken, a scalar that may be written."""
        count: Tensor = self.adamw.state[self.master]["step"]
        return count

    def owned(self) -> Iterator[Owned]:
        """Everything that a checkpoint needs beside `steps`, piece by piece."""
        states = self.adamw.state[self.master]
        tensors = (self.master.detach(), states["exp_avg"], states["exp_avg_sq"])
        for piece in self.pieces:
            yield Owned(piece, *(piece.view(tensor) for tensor in tensors))

    def state(self) -> list[Tensor]:
        """Every tensor that lives on between steps, except the flat buffers."""
        return [self.master, *self.adamw.state[self.master].values()]


def _own(size: int, index: int, shards: int) -> slice:
    each = size // shards
    return slice(index * each, (index + 1) * each) if shards > 1 else slice(0, size)


def _fresh(master: Tensor) -> dict[str, Tensor]:
    """AdamW's states before the first step, made now so that a checkpoint can be read into them."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=master.device),
        "exp_avg": torch.zeros_like(master),
        "exp_avg_sq": torch.zeros_like(master),
    }
