"""Plain torch modules to capture, and what torch counts while it computes them."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from profiler.capture import attention

WIDTH = 8


class Loss(nn.Module):
    """Any module with a loss."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x).square().mean()


class Repeated(nn.Module):
    """One block, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def forward(self, x: Any) -> Any:
        for _ in range(3):
            x = self.block(x)
        return x


class Blocks(nn.Module):
    """Blocks of code that torch.export keeps as graphs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            scale = self.a(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.b(x)
        y = torch.utils.checkpoint.checkpoint(self.c, y.float(), use_reentrant=False)
        return y * scale


class Mixed(nn.Module):
    """Products that are no linear layer, and writing in place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.bilinear = nn.Bilinear(WIDTH, WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        scores = torch.einsum("bsd,btd->bst", x @ self.weight, x)
        y = scores.softmax(-1) @ x
        y = torch.baddbmm(y, scores, x)
        out = torch.zeros_like(y)
        out[:, 1:] = self.bilinear(y, x)[:, :-1]
        out += x @ self.weight.T
        return out


def encoder(layers: int = 3, **options: Any) -> Any:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def pictures() -> tuple[Any, Any]:
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 2, stride=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 6 * 6, 5),
    )
    return body, torch.randn(2, 3, 8, 8)


def sequence() -> Any:
    return torch.randn(2, 5, WIDTH)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.rnn(x)[0]


def frozen() -> Any:
    model = encoder()
    for parameter in model.layers[0].parameters():
        parameter.requires_grad_(False)
    return model


MODULES = {
    "encoder": lambda: (encoder(), sequence()),
    "norm first": lambda: (encoder(norm_first=True, activation="gelu"), sequence()),
    "frozen": lambda: (frozen(), sequence()),
    "pictures": pictures,
    "repeated": lambda: (Repeated(), sequence()),
    "mixed": lambda: (Mixed(), sequence()),
    "recurrent": lambda: (Recurrent(), sequence()),
    "loss": lambda: (Loss(encoder()), sequence()),
    "gradient of the input": lambda: (encoder(), sequence().requires_grad_()),
    "blocks": lambda: (Blocks(), sequence()),
}
STACKED = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "no bias": lambda: nn.Linear(WIDTH, WIDTH, bias=False),
    "frozen": lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False),
    "convolution": lambda: nn.Conv1d(5, 5, 3, padding=1),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "rms norm": lambda: nn.RMSNorm(WIDTH),
    "gelu": nn.GELU,
    "softmax": lambda: nn.Softmax(-1),
    "dropout": lambda: nn.Dropout(0.5),
    "layer": lambda: encoder(1),
    "repeated": Repeated,
}


def counted(model: Any, x: Any) -> tuple[int, int]:
    """FLOPs of forward and backward while torch computes."""
    with FlopCounterMode(display=False, custom_mapping=attention.FORMULAS) as forward:
        out = model(x)
    with FlopCounterMode(display=False, custom_mapping=attention.FORMULAS) as backward:
        if out.requires_grad:
            out.float().sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def kept_bytes(model: Any, x: Any) -> int:
    """Bytes that autograd keeps while torch computes, weights aside."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
