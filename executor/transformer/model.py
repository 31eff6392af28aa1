"""The Transformer of a ModelSpec (planner.spec.runnable), as the papers write it.

    h = E[tokens] (+ P[positions]) ..                                 embedding
    h = h + Attention(norm(h));  h = h + MLP(norm(h))                 each layer, here pre-norm
    loss = mean cross entropy(norm(h) U^T, targets)                   head; U = E when tied

GPT-2 (Radford et al. 2019): LayerNorm, learned positions, biases, MLP = W2 gelu(W1 x).
Llama (Touvron et al. 2023): RMSNorm, rotary positions, grouped queries, a gated MLP.
BERT (Devlin et al. 2019): all tokens see each other, norms after, heads of classes too.
T5 (Raffel et al. 2020): an encoder and a decoder that reads it, relative positions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from executor.transformer.bridge import Bridge
from executor.transformer.embedding import Embedding
from executor.transformer.head import AnyHead, make_head
from executor.transformer.layer import Layer
from executor.transformer.relative_bias import RelativeBias
from executor.transformer.rotary import Rotary
from planner.spec.model import ModelSpec

TIED = ("embedding.tokens.weight", "head.projection.weight")
"""The two names of the one matrix of a model with tied embeddings."""


class Transformer(nn.Module):
    """The whole model. Embedding and head may be None, layers may be missing: then it is a part.

    Layers are numbered through both stacks, an encoder's first. Parameters are made by torch's
    defaults; executor.transformer.initial gives them their values. tokens: of a sequence, for the
    tables of rotary positions.
    """

    def __init__(self, spec: ModelSpec, tokens: int):
        super().__init__()
        first = spec.stacks[0]
        self.embedding: Embedding | None = Embedding(spec, first.embedding)
        kinds = [kind for stack in spec.stacks for kind in stack.kinds]
        rotated = [kind.attention for kind in kinds if kind.attention.rotary_dim]
        self.rotary = Rotary(rotated[0], tokens) if rotated else None
        attention = first.kinds[0].attention
        self.relative_bias = RelativeBias(attention) if attention.relative_buckets else None
        self.bridge = Bridge(spec) if spec.encoder is not None else None
        self.layers = nn.ModuleDict(
            {
                str(i): Layer(spec, spec.stacks[stack].kinds[kind])
                for i, (stack, kind) in enumerate(spec.order)
            }
        )
        self.head: AnyHead | None = make_head(spec)
        if spec.tied_embeddings:
            self.tie()

    def tie(self) -> None:
        """Let the head use the matrix of the embedding."""
        assert self.head is not None
        tables = [self.embedding, None if self.bridge is None else self.bridge.embedding]
        table = [each.tokens for each in tables if each is not None and each.tokens is not None][-1]
        self.head.projection.weight = table.weight

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """Tokens (or, without an embedding, [b, s, h]) -> loss, logits, or [b, s, h].

        Tokens are [b, s]; of an encoder and a decoder [b, 2, s]: the source, and what the decoder
        has written so far.
        """
        return self.part(tuple(self.layers))(x, targets)

    def part(self, layers: Iterable[str], first: bool = True, last: bool = True) -> "Part":
        """The named layers, with the embedding where first and the head where last."""
        return Part(
            self.embedding if first else None,
            tuple(self.layers[name] for name in layers),
            self.rotary,
            self.relative_bias,
            self.bridge,
            self.head if last else None,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive pieces of a model, called like the model."""

    embedding: Embedding | None
    layers: tuple[Layer, ...]
    rotary: Rotary | None
    relative_bias: RelativeBias | None
    bridge: Bridge | None
    head: AnyHead | None

    def __call__(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """As Transformer.forward."""
        x = self._one_stack(x) if self.bridge is None else self._two_stacks(x, self.bridge)
        return x if self.head is None else self.head(x, targets)

    def _one_stack(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        if self.embedding is not None:
            x = self.embedding(x)
        return self._through(self.layers, x, _bias(self.relative_bias, tokens), None)

    def _two_stacks(self, tokens: Tensor, bridge: Bridge) -> Tensor:
        assert self.embedding is not None, "a model of two stacks is not cut in stages"
        source, target = tokens.unbind(1)
        bias = _bias(self.relative_bias, source.shape[1])
        x = self._through(self.layers[: bridge.first], self.embedding(source), bias, None)
        memory = bridge.end(x)
        bias = _bias(bridge.relative_bias, target.shape[1])
        y = bridge.start(target, self.embedding)
        return self._through(self.layers[bridge.first :], y, bias, memory)

    def _through(
        self, layers: tuple[Layer, ...], x: Tensor, bias: Tensor | None, memory: Tensor | None
    ) -> Tensor:
        for layer in layers:
            x = layer(x, self.rotary, bias, memory)
        return x


def _bias(of: RelativeBias | None, tokens: int) -> Tensor | None:
    return None if of is None else of(tokens)


def meta_model(spec: ModelSpec, tokens: int) -> Transformer:
    """The whole model without memory: shapes only."""
    with torch.device("meta"):
        return Transformer(spec, tokens)
