"""Feed-forward: W2 act(W1 x) (Vaswani et al. 2017), W2 (act(Wg x) * W1 x) (Shazeer 2020)."""

import functools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from planner.spec import layer
from planner.spec.layer import Activation

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
}


class MLP(nn.Module):
    """Two matrices with an activation between, or three with a gate, [b, s, h] -> [b, s, h]."""

    def __init__(self, spec: layer.MLP, hidden: int):
        super().__init__()
        self.act = ACTIVATIONS[spec.activation]
        inner = functools.partial(nn.Linear, hidden, spec.ffn, bias=spec.bias)
        self.gate: nn.Linear | None = inner() if spec.gated else None
        self.up: nn.Linear = inner()
        self.down = nn.Linear(spec.ffn, hidden, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        """act(gate(x)) * up(x), or act(up(x)), through the last matrix."""
        if self.gate is None:
            return self.down(self.act(self.up(x)))
        return self.down(self.act(self.gate(x)) * self.up(x))
