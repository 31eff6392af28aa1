"""Attention: projections, positions, core (Vaswani et al. 2017), grouped queries (Ainslie et al.
2023), queries and keys normed head by head first (Henry et al. 2020) where the spec says so.

    o = softmax(q k^T / sqrt(d) + bias) v        bias: of relative positions, and -inf for what a
                                                 causal mask hides

T5 leaves the root of d to its initial values; here every family divides by it. Cross-attention
reads keys and values from an encoder's output.

Shapes: b sequences, s tokens, h hidden, d head_dim. Nothing here knows of ranks: a layer reads
its number of heads from the width of its projections, so a slice of it is a model too.
"""

from torch import Tensor, nn
from torch.nn import functional

from executor.transformer.rotary import Rotary
from planner.spec import layer
from planner.spec.model import ModelSpec


class Attention(nn.Module):
    """Attention of grouped queries, [b, s, h] -> [b, s, h].

    core: scores, softmax and weighting, what selective recomputation runs again. attend: what
    takes queries to outputs; the core itself unless other ranks have some of the keys.
    """

    def __init__(self, spec: ModelSpec, of: layer.Attention):
        super().__init__()
        h = spec.hidden
        self.head_dim, self.causal, self.rotates = of.head_dim, of.causal, bool(of.rotary_dim)
        self.q = nn.Linear(h, of.query_width, bias=of.q_bias)
        self.k = nn.Linear(h, of.key_width, bias=of.k_bias)
        self.v = nn.Linear(h, of.value_width, bias=of.v_bias)
        self.o = nn.Linear(of.output_width, h, bias=of.o_bias)
        self.q_norm, self.k_norm = _head_norm(spec, of), _head_norm(spec, of)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        bias: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Attend. rotary: tables for heads that rotate. bias: [1, heads, s, s], the causal mask
        included. memory: what keys and values are made of, x itself without it."""
        read = x if memory is None else memory
        q, k, v = self._heads(self.q(x)), self._heads(self.k(read)), self._heads(self.v(read))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None and self.rotates:
            q, k = rotary(q), rotary(k)
        y = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
        return self.o(y.transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """[b, heads, s, d] of queries, keys and values -> the same of outputs."""
        return self.core(q, k, v, bias)

    def core(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Scores, softmax and weighting, [b, heads, s, d] -> the same."""
        return functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias,
            is_causal=self.causal and bias is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim)


def _head_norm(spec: ModelSpec, of: layer.Attention) -> nn.RMSNorm | None:
    if not of.qk_norm:
        return None
    return nn.RMSNorm(of.head_dim, eps=spec.norm_eps, elementwise_affine=spec.norm_affine)
