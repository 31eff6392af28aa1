"""The plain decoder of a ModelSpec (planner.spec.plain), as the papers write it.

    h = E[tokens] (+ P[positions])                                    embedding
    h = h + Attention(norm(h))
    h = h + MLP(norm(h))                                              each layer, pre-norm
    loss = mean cross entropy(norm(h) U^T, targets)                   head; U = E when tied

GPT-2 (Radford et al. 2019): LayerNorm, learned positions, biases, MLP = W2 gelu(W1 x).
Llama (Touvron et al. 2023): RMSNorm, rotary positions, grouped queries, a gated MLP.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from executor.embedding import Embedding
from executor.head import Head
from executor.layer import Layer
from executor.rotary import Rotary
from planner.spec.model import ModelSpec

TIED = ("embedding.tokens.weight", "head.projection.weight")
"""The two names of the one matrix of a model with tied embeddings."""


class Transformer(nn.Module):
    """The whole model. Embedding and head may be None, layers may be missing: then it is a part.

    Parameters are made by torch's defaults; executor.initial gives them their values. tokens: of
    a sequence, for the tables of rotary positions.
    """

    def __init__(self, spec: ModelSpec, tokens: int):
        super().__init__()
        self.embedding: Embedding | None = Embedding(spec)
        attention = spec.layer.attention
        self.rotary = Rotary(attention, tokens) if attention.rotary_dim else None
        self.layers = nn.ModuleDict({str(i): Layer(spec) for i in range(spec.layers)})
        self.head: Head | None = Head(spec)
        if spec.tied_embeddings:
            self.head.projection.weight = self.embedding.tokens.weight

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """Tokens [b, s] (or, without an embedding, [b, s, h]) -> loss, logits, or [b, s, h]."""
        return self.part(tuple(self.layers))(x, targets)

    def part(self, layers: Iterable[str], first: bool = True, last: bool = True) -> "Part":
        """The named layers, with the embedding where first and the head where last."""
        return Part(
            self.embedding if first else None,
            tuple(self.layers[name] for name in layers),
            self.rotary,
            self.head if last else None,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive pieces of a model, called like the model."""

    embedding: Embedding | None
    layers: tuple[Layer, ...]
    rotary: Rotary | None
    head: Head | None

    def __call__(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """As Transformer.forward."""
        if self.embedding is not None:
            x = self.embedding(x)
        for layer in self.layers:
            x = layer(x, self.rotary)
        return x if self.head is None else self.head(x, targets)


def meta_model(spec: ModelSpec, tokens: int) -> Transformer:
    """The whole model without memory: shapes only."""
    with torch.device("meta"):
        return Transformer(spec, tokens)
