"""Data parallelism and the optimiser, over the units of a rank.

d = dp * cp ranks share every unit, of experts fewer or more (replicated: ZeRO 0 and 1, sharded: 2
and 3, served: parameter servers); g is the sum of the gradients of their microbatches.

    reduce        replicated part of g summed over tp; tied matrix summed over {first, last} stage;
                  what of the sum over dp the backward has not done
    update        |g|^2 over all parameters once; AdamW on the own part of the weights; all ranks
                  get it (ZeRO 1 and 2); g <- 0

ZeRO (Rajbhandari et al. 2020): the optimiser's states (1), gradients too (2), weights too (3)
exist once among d ranks.

Norm: every rank adds |g_i|^2 of the pieces that it is the first to hold (pieces) and one
all-reduce over all ranks ends it, in fp64. Clipping by it is torch's clip_grad_norm_:

    g <- g * min(1, clip_norm / (|g| + 1e-6))

one more pass over the own gradients, which the planner does not cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.parallel import collectives
from executor.parallel.mesh import Mesh
from executor.states.pieces import Piece
from executor.states.replicated import Replicated
from executor.states.served import Served
from executor.states.sharded import Sharded

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


Unit = Replicated | Sharded | Served


class Updater:
    """Reduces the gradients of a rank's stages and updates their weights.

    clip_norm: gradients of a larger norm are scaled down to it; none are without it.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        mesh: Mesh,
        learning_rate: float,
        clip_norm: float | None = None,
    ):
        self.units, self.mesh, self.clip_norm = tuple(units), mesh, clip_norm
        self.owns = tuple(unit.own for unit in units)
        masters = [own.master for own in self.owns]
        self.adamw = torch.optim.AdamW(masters, lr=learning_rate, fused=True)
        for master in masters:
            self.adamw.state[master] = _fresh(master)

    def reduce(self) -> None:
        """Sum the gradients over all ranks that computed a share of them."""
        replicated = [part for unit in self.units for part in unit.replicated]
        collectives.all_reduce_joined(replicated, self.mesh.tp)
        tied = [part for unit in self.units for part in unit.tied]
        collectives.all_reduce_joined(tied, self.mesh.tied)
        for unit in self.units:
            unit.reduce()

    def update(self) -> Tensor:
        """One AdamW step; zeroes the gradients. Returns their norm before clipping, a scalar."""
        norm = self._norm()
        if self.clip_norm is not None:
            scale = (self.clip_norm / (norm + NORM_FLOOR)).clamp_(max=1.0)
            for own in self.owns:
                own.gradients.mul_(scale.to(own.gradients.dtype))
        self.adamw.step()
        self.publish()
        for unit in self.units:
            unit.clear()
        return norm

    def publish(self) -> None:
        """Give all ranks the weights that this one owns: after a step, or after writing `owned`."""
        for unit in self.units:
            unit.publish()

    def _norm(self) -> Tensor:
        device = self.owns[0].gradients.device if self.owns else None
        total = torch.zeros((), dtype=torch.float64, device=device)
        for own in self.owns:
            for region in own.counted:
                total += torch.linalg.vector_norm(own.gradients[region]).double().square()
        collectives.all_reduce(total, self.mesh.everyone)
        return total.sqrt()

    @property
    def steps(self) -> int:
        """How many steps AdamW has taken."""
        counts = {int(state["step"]) for state in self.adamw.state.values()}
        return counts.pop() if counts else 0

    @steps.setter
    def steps(self, count: int) -> None:
        for state in self.adamw.state.values():
            state["step"].fill_(count)

    def owned(self) -> Iterator[Owned]:
        """Everything that a checkpoint needs beside `steps`, piece by piece."""
        for own in self.owns:
            states = self.adamw.state[own.master]
            tensors = (own.master.detach(), states["exp_avg"], states["exp_avg_sq"])
            for piece in own.pieces:
                yield Owned(piece, *(piece.view(tensor) for tensor in tensors))

    def resident(self) -> Iterator[Tensor]:
        """Every tensor that lives on between steps; some are views of others."""
        for unit in self.units:
            yield from unit.resident()
            yield from self.adamw.state[unit.own.master].values()

    def gathered(self) -> Iterator[Tensor]:
        """Tensors whose memory comes and goes while a step runs."""
        for unit in self.units:
            yield from unit.gathered()


def _fresh(master: Tensor) -> dict[str, Tensor]:
    """AdamW's states before the first step, made now so that a checkpoint can be read into them."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=master.device),
        "exp_avg": torch.zeros_like(master),
        "exp_avg_sq": torch.zeros_like(master),
    }
