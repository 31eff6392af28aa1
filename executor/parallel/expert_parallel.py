"""Expert parallelism: E experts over p ranks (ep), each expert's columns over x of them (etp).

A rank routes its own rows. Copies go to the ranks of their experts and come back:

    send counts - rows - [gather over etp -] columns of the experts [- sum over etp] - send back

    dispatch    all-to-all of rows, as many as the router chose        backward: the same, reversed
    gather      the x ranks that share an expert see all their rows    backward: reduce-scatter
    sum         reduce-scatter of the partial sums                     backward: all-gather

Counts differ from rank to rank and from step to step: they go ahead (E numbers), and rows to gather
are filled up to the largest count. Ranks that hold the same columns of the same experts, p*x
apart, sum their gradients (mesh.experts); routers are whole on every rank.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from executor.parallel import collectives
from executor.parallel.collectives import Group
from executor.parallel.mesh import Peers
from executor.parallel.tensor_parallel import ExpertSlice, Gather, Scatter, share
from executor.transformer.experts import Bank, Experts
from executor.transformer.model import Transformer

Counts = list[list[int]]
"""Rows by rank of ep and by expert of one rank."""


def divide(model: Transformer, ep: Peers, etp: Peers) -> dict[str, ExpertSlice]:
    """Leave a rank's experts in a model (or a stage of one) on the meta device, and connect them.

    Returns the slice of every expert parameter by name, also where it is whole.
    """
    found: dict[str, ExpertSlice] = {}
    for name, layer in model.layers.items():
        if isinstance(layer.mlp, Experts):
            prefix, experts = f"layers.{name}.mlp.experts.", cast(Any, layer.mlp)
            found |= {prefix + key: part for key, part in _cut(experts.experts, ep, etp)}
            if ep.size * etp.size > 1:
                experts.answers = _connected(experts, ep, etp)
    return found


def _cut(bank: Bank, ep: Peers, etp: Peers) -> list[tuple[str, ExpertSlice]]:
    cut = []
    for name, parameter in list(bank.named_parameters()):
        part = ExpertSlice(
            tuple(
                share(parameter.shape[dim], dim, peers.rank, peers.size)
                for dim, peers in ((0, ep), (2 if name == "down" else 1, etp))
                if peers.size > 1
            )
        )
        setattr(bank, name, nn.Parameter(part.of(parameter.detach()).clone()))
        cut.append((name, part))
    return cut


def _connected(experts: Experts, ep: Peers, etp: Peers) -> Callable[[Tensor, list[int]], Tensor]:
    def answers(rows: Tensor, counts: list[int]) -> Tensor:
        here = experts.count // ep.size
        wanted = [counts[i : i + here] for i in range(0, experts.count, here)]
        asked = wanted if experts.even else _exchanged(wanted, ep, rows.device)
        sent, received = ([sum(each) for each in both] for both in (wanted, asked))
        sorting = Sorting([asked] * etp.size if experts.even else _all(asked, etp, rows.device))
        # one name, so that nothing is held longer than until the next step has read it
        rows = Dispatch.apply(rows, sent, received, ep.group)
        rows = _gathered(rows, etp, sorting.most)
        rows = sorting.by_expert(rows)
        rows = experts.experts(rows, sorting.counts)
        rows = sorting.back(rows)
        rows = _summed(rows, etp, sum(received))
        return Dispatch.apply(rows, received, sent, ep.group)

    return answers


class Dispatch(torch.autograd.Function):
    """Rows to the ranks they are for, sent[i] to rank i; gradients come back the same way."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: Group
    ) -> Tensor:
        """All-to-all."""
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return collectives.all_to_all_uneven(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """All-to-all."""
        back = collectives.all_to_all_uneven(grad, ctx.received, ctx.sent, ctx.group)
        return back, None, None, None


def _exchanged(wanted: Counts, ep: Peers, device: torch.device) -> Counts:
    """What every rank of ep wants of this one's experts."""
    if ep.group is None:
        return wanted
    asked: Counts = collectives.all_to_all(torch.tensor(wanted, device=device), ep.group).tolist()
    return asked


class Sorting:
    """Rows that lie by member of etp, sender and expert, in the order of experts and back.

    asked: by member. most: rows to which every member's are filled up; what fills them belongs to
    no expert. counts: rows by expert.
    """

    def __init__(self, asked: list[Counts]):
        totals = [sum(map(sum, each)) for each in asked]
        here, self.most = len(asked[0][0]), max(totals)
        blocks: list[tuple[int, int | None]] = []
        for member, total in zip(asked, totals, strict=True):
            for sender in member:
                blocks += [(count, expert) for expert, count in enumerate(sender)]
            blocks.append((self.most - total, None))
        self._sizes = [size for size, _ in blocks]
        self._order = [
            k for i in range(here) for k, (_, expert) in enumerate(blocks) if expert == i
        ]
        self.counts = [sum(size for size, expert in blocks if expert == i) for i in range(here)]
        self._filling = self.most - min(totals)

    def by_expert(self, rows: Tensor) -> Tensor:
        """Without what fills up."""
        blocks = rows.split(self._sizes)
        return torch.cat([blocks[k] for k in self._order])

    def back(self, rows: Tensor) -> Tensor:
        """With zeros to fill up."""
        sorted_blocks = rows.split([self._sizes[k] for k in self._order])
        blocks = dict(zip(self._order, sorted_blocks, strict=True))
        zeros = rows.new_zeros(self._filling, rows.shape[1])
        return torch.cat(
            [blocks[k] if k in blocks else zeros[:size] for k, size in enumerate(self._sizes)]
        )


def _gathered(rows: Tensor, etp: Peers, most: int) -> Tensor:
    """Those of all members of etp."""
    if etp.size == 1:
        return rows
    filled = nn.functional.pad(rows, (0, 0, 0, most - len(rows)))
    return Gather.apply(filled.unsqueeze(0), etp.group, etp.size)[0]


def _summed(rows: Tensor, etp: Peers, own: int) -> Tensor:
    """The sum over etp of one's own rows."""
    if etp.size == 1:
        return rows
    return Scatter.apply(rows.unsqueeze(0), etp.group, etp.size)[0, :own]


def _all(asked: Counts, etp: Peers, device: torch.device) -> list[Counts]:
    """What every member of etp is asked."""
    if etp.size == 1:
        return [asked]
    own = torch.tensor(asked, device=device)
    whole = own.new_empty(etp.size, *own.shape)
    collectives.all_gather(whole.flatten(0, 1), own, etp.group)
    found: list[Counts] = whole.tolist()
    return found
