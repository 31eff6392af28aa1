"""Embedding: what stands before the first layer of a stack.

    h = [norm] (E[tokens] + P[positions] + T[0])

T is BERT's table of token types: one text has type 0 only, so only its first row learns.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.sequence_cut import SequenceCut
from executor.transformer.norm import norm
from planner.spec import model
from planner.spec.model import ModelSpec


class LearnedPositions(nn.Module):
    """Adds a learned vector per position to [b, s, h].

    offset: rows in front that stand for no position (RoBERTa's padding). cut: the positions of the
    tokens, if not all.
    """

    def __init__(self, rows: int, hidden: int, offset: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, hidden))
        self.offset = offset
        self.cut: SequenceCut | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Positions count from 0 in every sequence."""
        cut = self.cut or SequenceCut(x.shape[1])
        return x + functional.embedding(cut.positions(x.device) + self.offset, self.weight)


class TokenTypes(nn.Module):
    """Adds the vector of type 0 to [b, s, h]."""

    def __init__(self, types: int, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(types, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """One type for all tokens."""
        return x + self.weight[0]


class Embedding(nn.Module):
    """Tokens [b, s] -> [b, s, h]. A shared table is another embedding's, given with the call."""

    def __init__(self, spec: ModelSpec, of: model.Embedding):
        super().__init__()
        h = spec.hidden
        self.tokens: nn.Embedding | None = None
        if not of.shared_table:
            assert of.vocab is not None
            self.tokens = nn.Embedding(of.vocab, h)
        learned, rows = of.positions == "learned", (of.position_rows, h, of.position_offset)
        self.positions = LearnedPositions(*rows) if learned else None
        self.types = TokenTypes(of.token_types, h) if of.token_types else None
        self.norm = norm(spec) if of.norm else None

    def forward(self, tokens: Tensor, table: nn.Module | None = None) -> Tensor:
        """Look up the tokens, add positions and types, norm: what of it there is."""
        lookup = self.tokens if table is None else table
        assert lookup is not None
        x = lookup(tokens)
        for part in (self.positions, self.types, self.norm):
            x = x if part is None else part(x)
        return x
