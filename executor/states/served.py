"""Served: synchronisation by parameter servers (Li et al. 2014), sharded by parameter.

d = dp * cp ranks hold the same parameters; each is a worker, and the server of some of them: the
largest parameter goes to the server with the least so far, and so on. A server alone keeps AdamW's
states (and the fp32 master of 16-bit weights) of what it serves. Synchronous, once per step:

    reduce     push: a server takes the gradients of the d-1 others, one after the other, and adds
               them to its own
    publish    pull: it sends the d-1 others its new weights

In round k = 1 .. d-1 every rank i sends to server i+k and receives as server i (push), or sends as
server i to i+k and receives from server i-k (pull), so every link is used both ways at once and
one received share is held at a time. The sum is that of an all-reduce in another order, and d-1
messages of P/d each way are as many bytes as its 2(d-1)/d * P (where shares are equal; a parameter
larger than P/d makes its server the slowest).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from executor.parallel import collectives
from executor.parallel.mesh import Mesh
from executor.states import flat
from executor.states.flat import Plot, Slot, Value
from executor.states.own import make_own
from executor.transformer.model import Transformer


class Served:
    """A rank's parameters, by server. plots: of every server."""

    def __init__(
        self,
        model: Transformer,
        plots: Sequence[Plot],
        mesh: Mesh,
        device: torch.device,
        dtypes: tuple[torch.dtype, torch.dtype],
        value: Value,
    ):
        self._here, self._group = mesh.replica, mesh.dp
        self._ranks = dist.get_process_group_ranks(mesh.dp)
        self._flats = [flat.flatten(model, plot, device, *dtypes) for plot in plots]
        for each in self._flats:
            flat.fill(each.plot, each.weights, value)
        mine = self._flats[self._here]
        held = slice(0, mine.plot.size)
        self.own = make_own(mine.plot, mesh, held, mesh.replicas, mine.weights, mine.gradients)

    @property
    def replicated(self) -> list[Tensor]:
        """Gradients that are still to be summed over tp."""
        return [each.gradients[: each.plot.replicated_end] for each in self._flats]

    @property
    def tied(self) -> list[Tensor]:
        """Gradients that are still to be summed over first and last stage."""
        return [each.gradients[each.plot.tied_start : each.plot.used_end] for each in self._flats]

    def reduce(self) -> None:
        """Push."""
        received = torch.empty_like(self.own.gradients)
        for ahead, behind in self._rounds():
            sent = self._flats[ahead].gradients
            self._exchange(sent, ahead, received, behind)
            self.own.gradients.add_(received)

    def publish(self) -> None:
        """Pull."""
        self.own.publish()
        for ahead, behind in self._rounds():
            self._exchange(self.own.weights, ahead, self._flats[behind].weights, behind)

    def _rounds(self) -> Iterator[tuple[int, int]]:
        count = len(self._ranks)
        for k in range(1, count):
            yield (self._here + k) % count, (self._here - k) % count

    def _exchange(self, sent: Tensor, ahead: int, received: Tensor, behind: int) -> None:
        to, source = self._ranks[ahead], self._ranks[behind]
        collectives.exchange(sent, to, received, source, self._group)

    def clear(self) -> None:
        """Zero the gradients."""
        for each in self._flats:
            each.gradients.zero_()

    def values(self) -> Iterator[tuple[Slot, Tensor]]:
        """All parameters of the rank."""
        for each in self._flats:
            yield from each.values()

    def resident(self) -> Iterator[Tensor]:
        """Every tensor that lives from step to step, but for the optimiser's."""
        for each in self._flats:
            yield from (each.weights, each.gradients)
        yield self.own.master

    def gathered(self) -> Iterator[Tensor]:
        """Tensors whose memory comes and goes."""
        return iter(())


def assign(slots: Sequence[Slot], servers: int) -> list[list[Slot]]:
    """The parameters of every server: the largest first, each to the one with the least so far.

    Whole parameters count, so that all ranks of tp, whose slices may differ, decide alike. Of equal
    ones those that tp divides come first (planner.ledger.server_messages counts on it).
    """
    found: list[list[Slot]] = [[] for _ in range(servers)]
    loads = [0] * servers
    for slot in sorted(slots, key=_order):
        server = loads.index(min(loads))
        found[server].append(slot)
        loads[server] += slot.elements
    return found


def _order(slot: Slot) -> tuple[int, bool, str]:
    return -slot.elements, slot.part is None, slot.name
