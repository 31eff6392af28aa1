"""AdaptedLayer: a layer of a user's module, called as the executor calls its own.

The layer's code stays the user's; it gets what the top of its module would give it: cosines and
sines, the biases of relative positions, an encoder's output. No mask is ever given: the layers
know themselves whether they are causal, as long as they attend through torch's
scaled_dot_product_attention (checked in executor.adapted.model).
"""

from typing import Any

import torch
from torch import Tensor, nn

from executor.adapted.family import Cuts
from executor.transformer.attention import Attention
from executor.transformer.rotary import Rotary


class Angles:
    """Cosines and sines of all positions, made once per device and format by the user's module."""

    def __init__(self, made_by: nn.Module, tokens: int):
        self._made_by, self._tokens = made_by, tokens
        self._made: dict[tuple[torch.device, torch.dtype], Any] = {}

    def like(self, x: Tensor) -> Any:
        """For a stream in this format."""
        key = x.device, x.dtype
        if key not in self._made:
            positions = torch.arange(self._tokens, device=x.device).unsqueeze(0)
            self._made[key] = self._made_by(x, position_ids=positions)
        return self._made[key]


class AdaptedLayer(nn.Module):
    """One layer, [b, s, h] -> [b, s, h]. angles: where the family rotates heads."""

    def __init__(self, inner: nn.Module, cuts: Cuts, angles: Angles | None):
        super().__init__()
        self.inner, self.cuts, self._angles = inner, cuts, angles

    @property
    def attentions(self) -> list[Attention]:
        """None of the executor's own."""
        return []

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        bias: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """As executor.transformer.layer.Layer."""
        given: dict[str, Any] = {}
        if self._angles is not None:
            given["position_embeddings"] = self._angles.like(x)
        if bias is not None:
            given["position_bias"] = bias
        if memory is not None:
            given["encoder_hidden_states"] = memory
        y = self.inner(x, **given)
        return y[0] if isinstance(y, tuple) else y


class AdaptedBias:
    """The biases of relative positions that the first layer of a stack makes for all of them."""

    def __init__(self, attention: Any):
        self.attention = attention

    def __call__(self, tokens: int) -> Tensor:
        """[1, heads, tokens, tokens], without a causal mask: the layers know."""
        bias: Tensor = self.attention.compute_bias(tokens, tokens)
        return bias
