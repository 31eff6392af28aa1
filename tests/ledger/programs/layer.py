"""One Transformer layer on one rank: rows [n, h] in, rows [n, h] out.

Rows are the tokens of b sequences of this cp rank, [b * s/cp, h]; with sequence parallelism a
rank holds 1/tp of them between blocks. A block is entered and left through collectives:

    sequence parallel    enter all_gather              leave reduce_scatter
    else                 enter f (backward sums)       leave g (forward sums)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from planner.spec import layer as spec
from planner.spec.model import ModelSpec
from tests.ledger.programs import attention
from tests.ledger.programs.axes import Axes
from tests.ledger.programs.exchange import all_gather, copied, reduce_scatter, summed
from tests.ledger.programs.experts import DividedExperts
from tests.ledger.programs.weights import ACTIVATIONS, weight


def enter(x: Tensor, axes: Axes) -> Tensor:
    return all_gather(x, axes.tp) if axes.sequence_parallel else copied(x, axes.tp)


def leave(x: Tensor, axes: Axes) -> Tensor:
    return reduce_scatter(x, axes.tp) if axes.sequence_parallel else summed(x, axes.tp)


class Norm(nn.Module):
    def __init__(self, model: ModelSpec, name: str):
        super().__init__()
        self.weight = weight(f"{name}.weight", model.hidden)
        self.bias = weight(f"{name}.bias", model.hidden) if model.norm == "layernorm" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return functional.rms_norm(x, x.shape[-1:], self.weight, 1e-5)
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-5)


class Linear(nn.Module):
    """A matrix cut by columns, whose bias is cut too, or by rows, whose bias is whole."""

    def __init__(self, name: str, inputs: int, outputs: int, bias: bool, by: str, axes: Axes):
        super().__init__()
        columns = by == "columns"
        self.weight = weight(
            f"{name}.weight", outputs, inputs, dim=0 if columns else 1, group=axes.tp
        )
        group = axes.tp if columns else None
        self.bias = weight(f"{name}.bias", outputs, group=group) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def left(self, x: Tensor, axes: Axes) -> Tensor:
        """By rows: partial sums leave the block, then the bias is added once."""
        y = leave(functional.linear(x, self.weight), axes)
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    """Self- or cross-attention: keys and values are read from `source`."""

    def __init__(self, s: spec.Attention, hidden: int, axes: Axes, name: str):
        super().__init__()
        self.spec, self.axes = s, axes
        self.q = Linear(f"{name}.q", hidden, s.query_width, s.q_bias, "columns", axes)
        self.k = Linear(f"{name}.k", hidden, s.key_width, s.k_bias, "columns", axes)
        self.v = Linear(f"{name}.v", hidden, s.value_width, s.v_bias, "columns", axes)
        self.o = Linear(f"{name}.o", s.output_width, hidden, s.o_bias, "rows", axes)
        self.norms = nn.ParameterList(
            weight(f"{name}.{part}.norm", s.head_dim) for part in ("q", "k") if s.qk_norm
        )

    def forward(self, x: Tensor, batch: int, source: Tensor | None = None) -> Tensor:
        x = enter(x, self.axes)
        read = x if source is None else enter(source, self.axes)
        s = self.spec
        q, k = _heads(self.q(x), batch, s.head_dim), _heads(self.k(read), batch, s.head_dim)
        v = _heads(self.v(read), batch, s.value_head)
        if s.qk_norm:
            q, k = (_rms(part, norm) for part, norm in zip((q, k), self.norms, strict=True))
        y = attention.attend(q, k, v, self.spec.causal, self.axes)
        return self.o.left(y.transpose(1, 2).flatten(2).flatten(0, 1), self.axes)


class LatentAttention(nn.Module):
    """Projections through low ranks. The ways down work on the rank's own rows, so the block is
    entered behind them: once with the queries' rank, once with the keys' and values'."""

    def __init__(self, s: spec.Attention, model: ModelSpec, axes: Axes, name: str):
        super().__init__()
        self.spec, self.latent, self.axes, h = s, s.latent, axes, model.hidden
        rank, shared, plain = s.latent.query_rank, s.latent.kv_rank, s.head_dim - s.rotary_dim
        self.q_down = weight(f"{name}.q.down", rank, h) if rank else None
        self.q_norm = weight(f"{name}.q.norm", rank) if rank else None
        self.kv_norm = weight(f"{name}.kv.norm", shared)
        self.kv_down = weight(f"{name}.kv.down", shared + s.rotary_dim, h)
        self.q_up = Linear(f"{name}.q.up", rank or h, s.query_width, False, "columns", axes)
        up = s.heads * (plain + s.value_head)
        self.kv_up = Linear(f"{name}.kv.up", shared, up, False, "columns", axes)
        self.o = Linear(f"{name}.o", s.output_width, h, s.o_bias, "rows", axes)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        s, plain = self.spec, self.spec.head_dim - self.spec.rotary_dim
        q = x if self.q_down is None else _rms(x @ self.q_down.T, self.q_norm)
        q = _heads(self.q_up(enter(q, self.axes)), batch, s.head_dim)
        low, rotated = (x @ self.kv_down.T).split((self.latent.kv_rank, s.rotary_dim), dim=-1)
        both = enter(torch.cat((_rms(low, self.kv_norm), rotated), dim=-1), self.axes)
        low, rotated = both.split((self.latent.kv_rank, s.rotary_dim), dim=-1)
        up = _heads(self.kv_up(low), batch, plain + s.value_head)
        own, v = up.split((plain, s.value_head), dim=-1)
        one = _heads(rotated, batch, s.rotary_dim).expand(-1, own.shape[1], -1, -1)
        y = attention.attend(q, torch.cat((own, one), dim=-1), v, s.causal, self.axes)
        return self.o.left(y.transpose(1, 2).flatten(2).flatten(0, 1), self.axes)


def _rms(x: Tensor, factor: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], factor, 1e-5)


def _heads(x: Tensor, batch: int, width: int) -> Tensor:
    """[b*s, heads*d] -> [b, heads, s, d]."""
    return x.unflatten(1, (-1, width)).unflatten(0, (batch, -1)).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, s: spec.MLP, hidden: int, axes: Axes, name: str):
        super().__init__()
        self.axes, self.act = axes, ACTIVATIONS[s.activation]
        up = ("gate", "up") if s.gated else ("up",)
        self.up = nn.ModuleList(
            Linear(f"{name}.{each}", hidden, s.ffn, s.bias, "columns", axes) for each in up
        )
        self.down = Linear(f"{name}.down", s.ffn, hidden, s.bias, "rows", axes)

    def forward(self, x: Tensor) -> Tensor:
        x = enter(x, self.axes)
        first, *second = (linear(x) for linear in self.up)
        return self.down.left(self.act(first) * second[0] if second else self.act(first), self.axes)


class Mixture(nn.Module):
    """Divided experts, and a shared MLP beside them."""

    def __init__(self, s: spec.Experts, hidden: int, axes: Axes, name: str):
        super().__init__()
        self.experts = DividedExperts(s, hidden, axes, name)
        self.shared = MLP(s.shared, hidden, axes, f"{name}.shared") if s.shared else None
        self.gate = weight(f"{name}.gate", 1, hidden) if s.shared_gate else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.experts(x)
        if self.shared is None:
            return y
        other = self.shared(x)
        return y + (other if self.gate is None else other * (x @ self.gate.T).sigmoid())


class Layer(nn.Module):
    """Attention, cross-attention, feed-forward, in the order and with the norms of the kind."""

    def __init__(self, model: ModelSpec, kind: spec.LayerSpec, axes: Axes):
        super().__init__()
        self.kind, h = kind, model.hidden
        if kind.attention.latent is None:
            self.attention = Attention(kind.attention, h, axes, "attention")
        else:
            self.attention = LatentAttention(kind.attention, model, axes, "attention")
        self.cross = (
            Attention(kind.cross_attention, h, axes, "cross") if kind.cross_attention else None
        )
        made = MLP if isinstance(kind.feed_forward, spec.MLP) else Mixture
        self.feed_forward = made(kind.feed_forward, h, axes, "feed_forward")
        blocks = (
            ("attention", "cross", "feed_forward") if self.cross else ("attention", "feed_forward")
        )
        ends = ("before", "after") if kind.placement == "sandwich" else ("before",)
        self.norms = nn.ModuleDict(
            {f"{block}_{end}": Norm(model, f"{block}.{end}") for block in blocks for end in ends}
        )

    def forward(self, x: Tensor, batch: int, encoded: Tensor | None = None) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            return self.attention(y, batch)

        if self.kind.parallel:
            return (
                x
                + attend(self._norm("attention_before", x))
                + self.feed_forward(self._norm("feed_forward_before", x))
            )
        x = self._around(x, "attention", attend)
        if self.cross is not None:
            x = self._around(x, "cross", lambda y: self.cross(y, batch, encoded))
        return self._around(x, "feed_forward", self.feed_forward)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return self.norms[name](x)

    def _around(self, x: Tensor, name: str, block: Callable[[Tensor], Tensor]) -> Tensor:
        """A block with its norms and its residual connection."""
        if self.kind.placement == "post":
            return self._norm(f"{name}_before", x + block(x))
        y = block(self._norm(f"{name}_before", x))
        return x + (self._norm(f"{name}_after", y) if self.kind.placement == "sandwich" else y)
