"""The two ends of a language model, divided over tp by rows of the vocabulary.

Rank r holds the rows r*c .. (r+1)*c of table and head, c = ceil(V/tp). A token of another rank's
rows gives zero, and the sum over the ranks is the embedding.

    loss = log(sum_r sum_v exp(z_v - m)) - (z_target - m),    m = max over ranks and columns
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.parallel import collectives
from planner.spec.model import ModelSpec
from tests.ledger.programs.axes import Axes, index, size
from tests.ledger.programs.exchange import summed
from tests.ledger.programs.layer import Norm, enter, leave
from tests.ledger.programs.weights import weight


class Embedding(nn.Module):
    """Tokens [n] -> rows."""

    def __init__(self, model: ModelSpec, axes: Axes):
        super().__init__()
        self.axes, self.start = axes, first_row(model.vocab, axes)
        self.table = weight("table", model.vocab, model.hidden, group=axes.tp)

    def forward(self, tokens: Tensor) -> Tensor:
        own, outside = own_rows(tokens - self.start, self.table.shape[0])
        x = functional.embedding(own, self.table)
        return leave(x.masked_fill(outside.unsqueeze(-1), 0.0), self.axes)


class Head(nn.Module):
    """Rows and targets [n] -> mean loss."""

    def __init__(self, model: ModelSpec, axes: Axes):
        super().__init__()
        self.axes, self.norm = axes, Norm(model, "head.norm")
        self.matrix = weight("matrix", model.head.classes, model.hidden, group=axes.tp)
        self.start = first_row(model.head.classes, axes)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        logits = enter(self.norm(x), self.axes) @ self.matrix.T
        return loss(logits, targets - self.start, self.axes)


def loss(logits: Tensor, targets: Tensor, axes: Axes) -> Tensor:
    """Mean cross entropy of logits [n, V/tp]; targets count from this rank's first column."""
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))
    maximum = values.detach().amax(dim=-1)
    collectives.all_reduce_max(maximum, axes.tp)
    shifted = values - maximum.unsqueeze(-1)
    total = summed(shifted.exp().sum(dim=-1), axes.tp)
    index, outside = own_rows(targets, logits.shape[-1])
    chosen = shifted.gather(1, index.unsqueeze(-1)).squeeze(-1).masked_fill(outside, 0.0)
    return (total.log() - summed(chosen, axes.tp)).mean()


def first_row(vocab: int, axes: Axes) -> int:
    return index(axes.tp) * -(-vocab // size(axes.tp))


def own_rows(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows counted from this rank's first, 0 where another rank has them, and where that is."""
    outside = (rows < 0) | (rows >= count)
    return rows.masked_fill(outside, 0), outside
