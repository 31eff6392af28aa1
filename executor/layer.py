"""Layer: attention and feed-forward part around the residual stream, h = h + F(norm(h))."""

from torch import Tensor, nn

from executor.attention import Attention
from executor.feed_forward import MLP
from executor.norm import norm
from executor.rotary import Rotary
from planner.spec import plain
from planner.spec.model import ModelSpec


class Layer(nn.Module):
    """One pre-norm layer, [b, s, h] -> [b, s, h]."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.attention_norm = norm(spec)
        self.attention = Attention(spec)
        self.mlp_norm = norm(spec)
        self.mlp = MLP(plain.mlp(spec), spec.hidden)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        """Attention and MLP, each added to the residual stream."""
        x = x + self.attention(self.attention_norm(x), rotary)
        return x + self.mlp(self.mlp_norm(x))
