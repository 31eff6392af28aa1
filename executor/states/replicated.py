"""Replicated: a unit whose weights and gradients are whole on every rank, for ZeRO 0 and 1.

g is the sum of the gradients of the rank's microbatches; d = dp * cp ranks hold it, s of them
share one copy of the optimiser's states:

    reduce      ZeRO 0: g <- all-reduce over d      ZeRO 1: own 1/s of g <- reduce-scatter over s,
                                                    all-reduce over the d/s copies
    publish     ZeRO 1: w <- all-gather of the own 1/s
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from executor.parallel import collectives
from executor.parallel.mesh import Mesh
from executor.states import flat
from executor.states.flat import Plot, Slot, Value
from executor.states.own import make_own, own_range
from executor.transformer.model import Transformer


class Replicated:
    """The buffers of such a unit. zero: 0 or 1."""

    def __init__(
        self,
        model: Transformer,
        plot: Plot,
        mesh: Mesh,
        zero: int,
        device: torch.device,
        dtypes: tuple[torch.dtype, torch.dtype],
        value: Value,
    ):
        self._plot = plot
        self._sharers = sharers = mesh.sharers(plot.experts)
        self._shards = sharers.shard.size if zero else 1
        buffers = flat.flatten(model, plot, device, *dtypes)
        self.weights, self.gradients = buffers.weights, buffers.gradients
        flat.fill(plot, self.weights, value)
        index = sharers.shard.rank if zero else 0
        held = own_range(plot.size, index, self._shards)
        parts = self.weights[held], self.gradients[held]
        self.own = make_own(plot, mesh, held, self._shards, *parts)

    @property
    def replicated(self) -> list[Tensor]:
        """Gradients that are still to be summed over tp."""
        return [self.gradients[: self._plot.replicated_end]]

    @property
    def tied(self) -> list[Tensor]:
        """Gradients that are still to be summed over first and last stage."""
        return [self.gradients[self._plot.tied_start : self._plot.used_end]]

    def reduce(self) -> None:
        """Sum the gradients over all ranks that hold the same."""
        if self._shards > 1:
            group = self._sharers.shard.group
            collectives.reduce_scatter(self.own.gradients, self.gradients, group)
            collectives.all_reduce(self.own.gradients, self._sharers.copies)
        else:
            collectives.all_reduce(self.gradients, self._sharers.whole.group)

    def publish(self) -> None:
        """Give all ranks the own weights."""
        self.own.publish()
        if self._shards > 1:
            collectives.all_gather(self.weights, self.own.weights, self._sharers.shard.group)

    def clear(self) -> None:
        """Zero the gradients."""
        self.gradients.zero_()

    def values(self) -> Iterator[tuple[Slot, Tensor]]:
        """All parameters of the unit."""
        return ((slot, slot.view(self.weights)) for slot in self._plot.slots)

    def resident(self) -> Iterator[Tensor]:
        """Every tensor that lives from step to step, but for the optimiser's."""
        yield from (self.weights, self.gradients, self.own.master)

    def gathered(self) -> Iterator[Tensor]:
        """Tensors whose memory comes and goes."""
        return iter(())
