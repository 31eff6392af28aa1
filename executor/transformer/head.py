"""Head: what stands behind the last layer, and the loss.

    language model     [norm] [- dense, gelu, norm] - vocabulary - loss of every token
    token classes      [norm] - classes - loss of every token
    sequence classes   [norm] - one token of each sequence [- dense, tanh] - classes - loss

The one token is the first where all tokens see each other (BERT's class token) and the last under
a causal mask, where only that has seen all.

A rank may hold some of the rows only (rows start .. of [b*s, h],
executor.parallel.tensor_parallel). Losses of classes are then shares that sum to the mean over all
ranks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.transformer.norm import norm
from planner.spec.model import ModelSpec


@dataclass(frozen=True, slots=True)
class Rows:
    """Part `rank` of `ranks` equal ones of the rows [b*s]; all of them unless told."""

    rank: int = 0
    ranks: int = 1


class CrossEntropy(nn.Module):
    """Mean over rows of -log softmax(logits)[target]; 16-bit logits are widened to fp32."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [rows, vocab], targets [rows] -> scalar."""
        return functional.cross_entropy(widened(logits), targets)


class Head(nn.Module):
    """Of a language model."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        of = spec.head
        self.norm = norm(spec) if spec.main.final_norm else None
        self.transform = Transform(spec) if of.transform else None
        self.projection = nn.Linear(spec.hidden, of.classes, bias=of.bias)
        self.loss = CrossEntropy()

    def forward(self, x: Tensor, targets: Tensor | None) -> Tensor:
        """[b, s, h] -> mean loss over all tokens; without targets the logits [b, s, vocab]."""
        for part in (self.norm, self.transform):
            x = x if part is None else part(x)
        logits = self.projection(x)
        return logits if targets is None else self.loss(logits.flatten(0, 1), targets.flatten())


class Transform(nn.Module):
    """The dense layer of masked language models (Devlin et al. 2019)."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.dense = nn.Linear(spec.hidden, spec.hidden)
        self.norm = norm(spec)

    def forward(self, x: Tensor) -> Tensor:
        """norm(gelu(dense(x)))."""
        return self.norm(functional.gelu(self.dense(x)))


class TokenClasses(nn.Module):
    """A class for every token."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.norm = norm(spec) if spec.main.final_norm else None
        self.projection = nn.Linear(spec.hidden, spec.head.classes, bias=spec.head.bias)
        self.rows = Rows()

    def forward(self, x: Tensor, targets: Tensor | None) -> Tensor:
        """[b, s, h] of the own rows, targets [b, s] of all -> the share of the mean loss."""
        logits = self.projection(x if self.norm is None else self.norm(x))
        if targets is None:
            return logits
        count = x.shape[0] * x.shape[1]
        own = targets.flatten()[self.rows.rank * count :][:count]
        return functional.cross_entropy(widened(logits.flatten(0, 1)), own) / self.rows.ranks


class SequenceClasses(nn.Module):
    """A class for every sequence."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.norm = norm(spec) if spec.main.final_norm else None
        self.pooler = nn.Linear(spec.hidden, spec.hidden) if spec.head.pooler else None
        self.projection = nn.Linear(spec.hidden, spec.head.classes, bias=spec.head.bias)
        self.takes_last = all(kind.attention.causal for kind in spec.main.kinds)
        self.rows = Rows()

    def forward(self, x: Tensor, targets: Tensor | None) -> Tensor:
        """[b, s, h] of the own rows, targets [b] of all -> the share of the mean loss."""
        x = x if self.norm is None else self.norm(x)
        sequences, chosen = self._one_token(x)
        if self.pooler is not None:
            chosen = torch.tanh(self.pooler(chosen))
        logits = self.projection(chosen)
        if targets is None:
            return logits
        losses = functional.cross_entropy(widened(logits), targets[sequences], reduction="sum")
        return losses / len(targets)

    def _one_token(self, x: Tensor) -> tuple[slice, Tensor]:
        """The sequences whose token lies in the own rows, and those rows.

        Which they are is known without a look at numbers, so that a rehearsal has none to miss.
        """
        count, tokens = x.shape[0] * x.shape[1], x.shape[1] * self.rows.ranks
        start, place = self.rows.rank * count, tokens - 1 if self.takes_last else 0
        first, last = (-(-(row - place) // tokens) for row in (start, start + count))
        rows = torch.arange(first, last, device=x.device) * tokens + place - start
        return slice(first, last), x.flatten(0, 1)[rows]


AnyHead = Head | TokenClasses | SequenceClasses


def make_head(spec: ModelSpec) -> AnyHead:
    """The head of a model."""
    if spec.head.kind == "token_classification":
        return TokenClasses(spec)
    return SequenceClasses(spec) if spec.head.kind == "sequence_classification" else Head(spec)


def loss_is_shared(spec: ModelSpec) -> bool:
    """Whether tp ranks have shares of the loss that sum; else all of them have the whole."""
    return spec.head.kind != "language_model"


def widened(x: Tensor) -> Tensor:
    """A 16-bit tensor in fp32; any other as it is."""
    return x.float() if x.element_size() < 4 else x
