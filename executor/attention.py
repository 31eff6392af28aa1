"""Attention: projections, positions, core (Vaswani et al. 2017), grouped queries (Ainslie et al.
2023), queries and keys normed head by head first (Henry et al. 2020) where the spec says so.

Shapes: b sequences, s tokens, h hidden, d head_dim. Nothing here knows of ranks: a layer reads
its number of heads from the width of its projections, so a slice of it is a model too.
"""

from torch import Tensor, nn
from torch.nn import functional

from executor.rotary import Rotary
from planner.spec.model import ModelSpec


class Attention(nn.Module):
    """Causal attention of grouped queries, [b, s, h] -> [b, s, h].

    core: scores, softmax and weighting, what selective recomputation runs again. attend: what
    takes queries to outputs; the core itself unless other ranks have some of the keys.
    """

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
        y = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.o(y.transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[b, heads, s, d] of queries, keys and values -> the same of outputs."""
        return self.core(q, k, v)

    def core(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores, softmax and weighting, [b, heads, s, d] -> the same."""
        grouped = q.shape[1] != k.shape[1]
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim)


def _head_norm(spec: ModelSpec) -> nn.RMSNorm | None:
    of = spec.layer.attention
    if not of.qk_norm:
        return None
    return nn.RMSNorm(of.head_dim, eps=spec.norm_eps, elementwise_affine=spec.norm_affine)
