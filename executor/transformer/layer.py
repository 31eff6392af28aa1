"""Layer: attention and feed-forward part around the residual stream (planner.spec.layer).

pre       x = x + A(N x);  x = x + C(N x);  x = x + F(N x)
post      x = N(x + A x);  x = N(x + C x);  x = N(x + F x)
sandwich  x = x + N A(N x);  x = x + N F(N x)
parallel  x = x + A(N x) + F(N' x)
"""

from collections.abc import Callable

from torch import Tensor, nn

from executor.transformer.attention import Attention
from executor.transformer.experts import Experts
from executor.transformer.feed_forward import MLP
from executor.transformer.norm import norm
from executor.transformer.rotary import Rotary
from planner.spec import layer
from planner.spec.layer import LayerSpec
from planner.spec.model import ModelSpec


class Layer(nn.Module):
    """One layer of a kind, [b, s, h] -> [b, s, h]."""

    def __init__(self, spec: ModelSpec, kind: LayerSpec):
        super().__init__()
        self.placement, self.parallel = kind.placement, kind.parallel
        self.attention_norm = norm(spec)
        self.attention = Attention(spec, kind.attention)
        self.cross_norm: nn.Module | None = None
        self.cross_attention: Attention | None = None
        if kind.cross_attention is not None:
            self.cross_norm = norm(spec)
            self.cross_attention = Attention(spec, kind.cross_attention)
        self.mlp_norm = norm(spec)
        self.mlp = _feed_forward(kind, spec.hidden)
        after = kind.placement == "sandwich"
        self.attention_after_norm = norm(spec) if after else None
        self.mlp_after_norm = norm(spec) if after else None

    @property
    def attentions(self) -> list[Attention]:
        """To the own stream, and to an encoder's output if the layer reads one."""
        return [each for each in (self.attention, self.cross_attention) if each is not None]

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        bias: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """The parts one after another, or side by side. memory: of an encoder."""
        if self.parallel:
            attended = self.attention(self.attention_norm(x), rotary, bias)
            return x + attended + self.mlp(self.mlp_norm(x))

        def attend(y: Tensor) -> Tensor:
            return self.attention(y, rotary, bias)

        x = self._around(x, attend, self.attention_norm, self.attention_after_norm)
        if self.cross_attention is not None and self.cross_norm is not None:
            cross = self.cross_attention
            x = self._around(x, lambda y: cross(y, None, None, memory), self.cross_norm, None)
        return self._around(x, self.mlp, self.mlp_norm, self.mlp_after_norm)

    def _around(
        self,
        x: Tensor,
        part: Callable[[Tensor], Tensor],
        own: nn.Module,
        after: nn.Module | None,
    ) -> Tensor:
        if self.placement == "post":
            return own(x + part(x))
        y = part(own(x))
        return x + (y if after is None else after(y))


def _feed_forward(kind: LayerSpec, hidden: int) -> MLP | Experts:
    part = kind.feed_forward
    return MLP(part, hidden) if isinstance(part, layer.MLP) else Experts(part, hidden)
