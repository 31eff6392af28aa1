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

from executor import collectives
from executor.collectives import Group
from executor.experts import Bank, Experts
from executor.mesh import Peers
from executor.model import Transformer
from executor.tensor_parallel import ExpertSlice, Gather, Scatter, share

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
        arrived = Dispatch.apply(rows, sent, received, ep.group)
        spoken = _shared_answers(experts, arrived, asked, etp)
        return Dispatch.apply(spoken, received, sent, ep.group)

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


def _shared_answers(experts: Experts, rows: Tensor, asked: Counts, etp: Peers) -> Tensor:
    """What the experts here say to rows that lie by sender and expert."""
    if etp.size == 1:
        return _sorted_answers(experts, rows, asked)
    all_asked = [asked] * etp.size if experts.even else _all(asked, etp, rows.device)
    lengths = [sum(map(sum, each)) for each in all_asked]
    most = max(lengths)
    filled = nn.functional.pad(rows, (0, 0, 0, most - len(rows)))
    gathered = Gather.apply(filled.unsqueeze(0), etp.group, etp.size)[0].split(most)
    own = torch.cat([part[:length] for part, length in zip(gathered, lengths, strict=True)])
    said = _sorted_answers(experts, own, [each for asked in all_asked for each in asked])
    partial = torch.cat(
        [nn.functional.pad(part, (0, 0, 0, most - len(part))) for part in said.split(lengths)]
    )
    return Scatter.apply(partial.unsqueeze(0), etp.group, etp.size)[0, : len(rows)]


def _sorted_answers(experts: Experts, rows: Tensor, counts: Counts) -> Tensor:
    """counts: of every sender in the order of the rows, by expert."""
    here = len(counts[0])
    sizes = [count for sender in counts for count in sender]
    order = [i for expert in range(here) for i in range(expert, len(sizes), here)]
    blocks = rows.split(sizes)
    by_expert = torch.cat([blocks[i] for i in order])
    said = experts.experts(by_expert, [sum(sizes[expert::here]) for expert in range(here)])
    back = dict(zip(order, said.split([sizes[i] for i in order]), strict=True))
    return torch.cat([back[i] for i in range(len(sizes))])


def _all(asked: Counts, etp: Peers, device: torch.device) -> list[Counts]:
    own = torch.tensor(asked, device=device)
    whole = own.new_empty(etp.size, *own.shape)
    collectives.all_gather(whole.flatten(0, 1), own, etp.group)
    found: list[Counts] = whole.tolist()
    return found
