"""The plain decoder of a ModelSpec (planner.spec.plain), as the papers write it.

    h = E[tokens] (+ P[positions])                                    embedding
    h = h + Attention(norm(h))
    h = h + MLP(norm(h))                                              each layer, pre-norm
    loss = mean cross entropy(norm(h) U^T, targets)                   head; U = E when tied

GPT-2 (Radford et al. 2019): LayerNorm, learned positions, biases, MLP = W2 gelu(W1 x).
Llama (Touvron et al. 2023): RMSNorm, rotary positions (Su et al. 2021), grouped queries
(Ainslie et al. 2023), MLP = W2 (act(Wg x) * W1 x).
Rotary positions may turn the first part of every head only (Black et al. 2022); queries and
keys may pass an RMS norm of each head first (Henry et al. 2020).

Shapes: b sequences, s tokens, h hidden, d head_dim. Nothing here knows of ranks: a layer reads
its number of heads from the width of its projections, so a slice of it is a model too.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from planner.spec import plain
from planner.spec.layer import Activation
from planner.spec.model import ModelSpec

TIED = ("embedding.tokens.weight", "head.projection.weight")
"""The two names of the one matrix of a model with tied embeddings."""

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
}


class Rotary(nn.Module):
    """Tables of rotary positions: angle = position / theta^(2i/r), shape [s, 1, r].

    r is rotary_dim, the first elements of a head, which are rotated; the others stay.
    """

    def __init__(self, spec: ModelSpec, seq_len: int):
        super().__init__()
        self.theta = spec.layer.attention.rope_theta
        empty = torch.empty(seq_len, 1, spec.layer.attention.rotary_dim)
        self.register_buffer("cos", empty, persistent=False)
        self.register_buffer("sin", empty.clone(), persistent=False)

    def fill(self) -> None:
        """Compute the tables in fp64 and round them to the buffers' format."""
        seq_len, _, width = self.cos.shape
        pairs = torch.arange(0, width, 2, dtype=torch.float64) / width
        positions = torch.arange(seq_len, dtype=torch.float64)
        angles = torch.outer(positions, torch.exp(-math.log(self.theta) * pairs))
        both = torch.cat((angles, angles), dim=-1)[:, None, :]
        self.cos.copy_(both.cos())
        self.sin.copy_(both.sin())

    def forward(self, x: Tensor) -> Tensor:
        """Rotate [b, s, heads, d]: the pairs are (x_i, x_(i + r/2)), as in Llama."""
        width = self.cos.shape[-1]
        if width == x.shape[-1]:
            return self._rotated(x)
        return torch.cat((self._rotated(x[..., :width]), x[..., width:]), dim=-1)

    def _rotated(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin


class Attention(nn.Module):
    """Causal attention of grouped queries, [b, s, h] -> [b, s, h]."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        of, h = spec.layer.attention, spec.hidden
        self.head_dim = of.head_dim
        self.q = nn.Linear(h, of.query_width, bias=of.q_bias)
        self.k = nn.Linear(h, of.key_width, bias=of.k_bias)
        self.v = nn.Linear(h, of.value_width, bias=of.v_bias)
        self.o = nn.Linear(of.output_width, h, bias=of.o_bias)
        self.q_norm, self.k_norm = _head_norm(spec), _head_norm(spec)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        """Attend; rotary is None where no head is rotated."""
        q, k, v = (self._heads(linear(x)) for linear in (self.q, self.k, self.v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        y = self.core(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.o(y.transpose(1, 2).flatten(2))

    def core(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores, softmax and weighting, [b, heads, s, d] -> the same."""
        grouped = q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim)


class MLP(nn.Module):
    """Two matrices with an activation between, or three with a gate, [b, s, h] -> [b, s, h]."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        of = plain.mlp(spec)
        self.act = ACTIVATIONS[of.activation]
        inner = functools.partial(nn.Linear, spec.hidden, of.ffn, bias=of.bias)
        self.gate: nn.Linear | None = inner() if of.gated else None
        self.up: nn.Linear = inner()
        self.down = nn.Linear(of.ffn, spec.hidden, bias=of.bias)

    def forward(self, x: Tensor) -> Tensor:
        """act(gate(x)) * up(x), or act(up(x)), through the last matrix."""
        if self.gate is None:
            return self.down(self.act(self.up(x)))
        return self.down(self.act(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """One pre-norm layer, [b, s, h] -> [b, s, h]."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.attention_norm = _norm(spec)
        self.attention = Attention(spec)
        self.mlp_norm = _norm(spec)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        """Attention and MLP, each added to the residual stream."""
        x = x + self.attention(self.attention_norm(x), rotary)
        return x + self.mlp(self.mlp_norm(x))


class LearnedPositions(nn.Module):
    """Adds a learned vector per position to [b, s, h]."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(spec.max_positions, spec.hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Positions count from 0 in every sequence."""
        return x + functional.embedding(torch.arange(x.shape[1], device=x.device), self.weight)


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


class CrossEntropy(nn.Module):
    """Mean over rows of -log softmax(logits)[target]; 16-bit logits are widened to fp32."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [rows, vocab], targets [rows] -> scalar."""
        return functional.cross_entropy(widened(logits), targets)


class Head(nn.Module):
    """Final norm, projection to the vocabulary, loss."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.norm = _norm(spec)
        self.projection = nn.Linear(spec.hidden, spec.vocab, bias=False)
        self.loss = CrossEntropy()

    def forward(self, x: Tensor, targets: Tensor | None) -> Tensor:
        """[b, s, h] -> mean loss over all tokens; without targets the logits [b, s, vocab]."""
        if targets is None:
            return self.projection(self.norm(x))
        return self.loss(self.projection(self.norm(x)).flatten(0, 1), targets.flatten())


class Transformer(nn.Module):
    """The whole model. Embedding and head may be None, layers may be missing: then it is a part.

    Parameters are made by torch's defaults; executor.initial gives them their values. seq_len
    sizes the tables of rotary positions.
    """

    def __init__(self, spec: ModelSpec, seq_len: int):
        super().__init__()
        self.embedding: Embedding | None = Embedding(spec)
        self.rotary = Rotary(spec, seq_len) if spec.layer.attention.rotary_dim else None
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


def meta_model(spec: ModelSpec, seq_len: int) -> Transformer:
    """The whole model without memory: shapes only."""
    with torch.device("meta"):
        return Transformer(spec, seq_len)


def widened(x: Tensor) -> Tensor:
    """A 16-bit tensor in fp32; any other as it is."""
    return x.float() if x.element_size() < 4 else x


def _head_norm(spec: ModelSpec) -> nn.RMSNorm | None:
    of = spec.layer.attention
    if not of.qk_norm:
        return None
    return nn.RMSNorm(of.head_dim, eps=spec.norm_eps, elementwise_affine=spec.norm_affine)


def _norm(spec: ModelSpec) -> nn.Module:
    kind = nn.LayerNorm if spec.norm == "layernorm" else nn.RMSNorm
    return kind(spec.hidden, eps=spec.norm_eps, elementwise_affine=spec.norm_affine)
