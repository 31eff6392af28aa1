"""A mixture of experts whose experts are divided over ep ranks and each expert over etp ranks.

A rank's r rows are copied per_token times and routed evenly: copy i goes to expert i mod E. (A
real router draws the experts by its scores; evenly drawn ones send the same bytes. Real routing
sends E counts before; here everybody knows them.)

    dispatch -> [ep, experts here, copies, h] -> gather over etp -> experts -> sum over etp
             -> combine -> weigh by the router's scores -> sum per token
"""

import torch
from torch import Tensor, nn

from planner.spec.layer import Experts
from tests.ledger.programs.axes import Axes, Group, part, size
from tests.ledger.programs.exchange import all_gather, all_to_all, reduce_scatter
from tests.ledger.programs.weights import ACTIVATIONS, weight


class DividedExperts(nn.Module):
    """[r, h] -> [r, h]. The rows of the etp group are different rows."""

    def __init__(self, spec: Experts, hidden: int, axes: Axes, name: str):
        super().__init__()
        self.spec, self.axes = spec, axes
        self.router = weight(f"{name}.router", spec.experts, hidden)
        self.experts = _Group(spec, hidden, axes, name)

    def forward(self, x: Tensor) -> Tensor:
        rows, h = x.shape
        copies = rows * self.spec.per_token
        expert = torch.arange(copies) % self.spec.experts
        order = expert.argsort(stable=True)
        sent = x.repeat_interleave(self.spec.per_token, dim=0)[order]
        answers = torch.empty_like(sent)
        answers[order] = self._answers(sent)
        scores = (x @ self.router.T).softmax(-1)
        chosen = scores.gather(1, expert.view(rows, self.spec.per_token))
        return (answers.view(rows, -1, h) * chosen.unsqueeze(-1)).sum(1)

    def _answers(self, sent: Tensor) -> Tensor:
        """What the experts say to the copies, sorted by expert."""
        axes, h = self.axes, sent.shape[-1]
        here = self.spec.experts // size(axes.ep)
        received = all_to_all(sent, axes.ep).view(size(axes.ep), here, -1, h)
        everything = all_gather(received, axes.etp)
        summed = reduce_scatter(self.experts(everything), axes.etp)
        return all_to_all(summed.reshape(sent.shape), axes.ep)


class _Group(nn.Module):
    """The experts of one rank, one matrix [experts, out, in] for all; each 1/etp of its columns."""

    def __init__(self, spec: Experts, hidden: int, axes: Axes, name: str):
        super().__init__()
        f, up = spec.expert.ffn, ("gate", "up") if spec.expert.gated else ("up",)
        self.act, axes_of = ACTIVATIONS[spec.expert.activation], (axes.ep, axes.etp)
        self.up = nn.ParameterList(
            _cut(f"{name}.{each}", (spec.experts, f, hidden), 1, *axes_of) for each in up
        )
        self.down = _cut(f"{name}.down", (spec.experts, hidden, f), 2, *axes_of)

    def forward(self, x: Tensor) -> Tensor:
        """[senders, experts, copies, h] -> the same."""
        first, *second = (torch.einsum("sech,efh->secf", x, matrix) for matrix in self.up)
        y = self.act(first) * second[0] if second else self.act(first)
        return torch.einsum("secf,ehf->sech", y, self.down).clone()  # FSDP2 hooks no views


def _cut(name: str, shape: tuple[int, ...], dim: int, ep: Group, etp: Group) -> nn.Parameter:
    """The experts of this rank, and of them the columns of this rank."""
    return nn.Parameter(part(weight(name, *shape, group=ep).data, dim, etp).clone())
