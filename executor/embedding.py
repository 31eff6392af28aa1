"""Embedding: what stands before the first layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.sequence_cut import SequenceCut
from planner.spec.model import ModelSpec


class LearnedPositions(nn.Module):
    """Adds a learned vector per position to [b, s, h]. cut: which ones those are, if not all."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(spec.max_positions, spec.hidden))
        self.cut: SequenceCut | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Positions count from 0 in every sequence."""
        cut = self.cut or SequenceCut(x.shape[1])
        return x + functional.embedding(cut.positions(x.device), self.weight)


class Embedding(nn.Module):
    """Tokens [b, s] -> [b, s, h]."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.tokens = nn.Embedding(spec.vocab, spec.hidden)
        learned = spec.main.embedding.positions == "learned"
        self.positions = LearnedPositions(spec) if learned else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up the tokens and, if they are learned, add the positions."""
        x = self.tokens(tokens)
        return x if self.positions is None else self.positions(x)
