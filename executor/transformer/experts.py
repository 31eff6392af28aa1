"""A mixture of E experts, of which a router sends each token to k (Shazeer et al. 2017).

    p = softmax(W x),  T = the k largest of p
    y = sum_{e in T} p_e / (sum_{T} p) * expert_e(x)   [+ shared(x) [* sigmoid(g x)]]

The chosen probabilities are normed to sum 1, as in Mixtral (Jiang et al. 2024); a ModelSpec has
no key for leaving that out. No token is dropped, and nothing balances the load. Copies of tokens
are sorted by expert, so every expert multiplies its rows at once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.transformer.feed_forward import ACTIVATIONS, MLP
from executor.transformer.head import widened
from planner.spec import layer


class Bank(nn.Module):
    """Experts side by side: matrices [experts, f, h] and [experts, h, f], biases if any."""

    def __init__(self, spec: layer.MLP, count: int, hidden: int):
        super().__init__()
        self.act = ACTIVATIONS[spec.activation]
        inner, outer = (count, spec.ffn), (count, hidden)
        self.gate = _parameter(*inner, hidden) if spec.gated else None
        self.up = _parameter(*inner, hidden)
        self.down = _parameter(*outer, spec.ffn)
        self.gate_bias = _parameter(*inner) if spec.gated and spec.bias else None
        self.up_bias = _parameter(*inner) if spec.bias else None
        self.down_bias = _parameter(*outer) if spec.bias else None

    def forward(self, x: Tensor, counts: list[int]) -> Tensor:
        """Rows [n, h] sorted by expert, so many of each -> the same."""
        up = self._each(x, counts, self.up, self.up_bias)
        if self.gate is None:
            inner = self.act(up)
        else:
            inner = self.act(self._each(x, counts, self.gate, self.gate_bias)) * up
        return self._each(inner, counts, self.down, self.down_bias)

    @staticmethod
    def _each(x: Tensor, counts: list[int], matrices: Tensor, biases: Tensor | None) -> Tensor:
        rows, weights = x.split(counts), matrices.unbind()
        vectors = [None] * len(weights) if biases is None else biases.unbind()
        return torch.cat(
            [functional.linear(*each) for each in zip(rows, weights, vectors, strict=True)]
        )


class Experts(nn.Module):
    """Router, experts, and an MLP that every token passes, [b, s, h] -> [b, s, h].

    even: send copies to the experts in turn, whatever the scores: for a rehearsal without numbers.
    """

    def __init__(self, spec: layer.Experts, hidden: int):
        super().__init__()
        self.count, self.per_token, self.even = spec.experts, spec.per_token, False
        self.router = nn.Linear(hidden, spec.experts, bias=False)
        self.experts = Bank(spec.expert, spec.experts, hidden)
        self.shared = MLP(spec.shared, hidden) if spec.shared is not None else None
        self.shared_gate = nn.Linear(hidden, 1, bias=False) if spec.shared_gate else None

    def forward(self, x: Tensor) -> Tensor:
        """The experts' weighted answers, and the shared MLP's."""
        y = self._routed(x.flatten(0, 1)).view_as(x)
        if self.shared is None:
            return y
        other = self.shared(x)
        return y + (other if self.shared_gate is None else other * self.shared_gate(x).sigmoid())

    def answers(self, rows: Tensor, counts: list[int]) -> Tensor:
        """What the experts say to rows that are sorted by expert, so many of each."""
        return self.experts(rows, counts)

    def _routed(self, rows: Tensor) -> Tensor:
        scores = widened(self.router(rows)).softmax(-1)
        weights, chosen = scores.topk(self.per_token)
        weights = weights / weights.sum(-1, keepdim=True)
        expert, counts = self._counted(chosen.flatten())
        order = expert.argsort(stable=True)
        answers = self.answers(rows[order // self.per_token], counts)
        answers = answers[inverse(order)].unflatten(0, (-1, self.per_token))
        return (answers * weights.to(rows.dtype).unsqueeze(-1)).sum(1)

    def _counted(self, expert: Tensor) -> tuple[Tensor, list[int]]:
        """The expert of every copy, and how many copies each expert gets."""
        if not self.even:
            return expert, torch.bincount(expert, minlength=self.count).tolist()
        copies = len(expert)
        counts = [len(range(first, copies, self.count)) for first in range(self.count)]
        return torch.arange(copies, device=expert.device) % self.count, counts


def route_evenly(model: nn.Module) -> None:
    """Let all experts of a model take copies in turn: for programs without numbers."""
    for module in model.modules():
        if isinstance(module, Experts):
            module.even = True


def inverse(order: Tensor) -> Tensor:
    """The permutation that undoes one."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return back


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))
