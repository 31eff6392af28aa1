"""Split backward: I makes the gradients of inputs, W later those of the matrices (Qi et al. 2023).

    y = x W^T + b        I: dx = dy W        W: dW = dy^T x, db = sum dy

While a deferral is open, a linear's backward returns dx and puts (x, dy) aside; W adds dW and db to
the parameters. Everything else (norms, embeddings, the bias after a row-parallel product) is small
and gets its gradients in I. So W holds no collective and needs nothing but x and dy, which stay in
memory until then; recomputation is done once, in I.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.parallel.tensor_parallel import RowParallelLinear
from executor.transformer.model import Transformer

Product = tuple[Tensor, nn.Parameter, nn.Parameter | None, Tensor]
"""x [..., k], weight [n, k], bias [n] or None, dy [..., n]."""


class Deferral:
    """What waits for the W of each microbatch of each stage.

    turn: the stage and microbatch of the I or W that runs. on_taken: told of every parameter whose
    gradient is put aside, when its value is no longer needed.
    """

    def __init__(self) -> None:
        self.turn: tuple[int, int] | None = None
        self.on_taken: dict[nn.Parameter, Callable[[], None]] = {}
        self._open: list[Product] | None = None
        self._waiting: dict[tuple[int, int], list[Product]] = {}

    @property
    def is_open(self) -> bool:
        """Whether an I runs."""
        return self._open is not None

    @contextlib.contextmanager
    def opened(self, stage: int, microbatch: int) -> Iterator[None]:
        """Put weight gradients aside for W(stage, microbatch) while the block runs."""
        self._open = self._waiting[stage, microbatch] = []
        self.turn = stage, microbatch
        try:
            yield
        finally:
            self._open = self.turn = None

    def finish(self, stage: int, microbatch: int) -> None:
        """W: add what was put aside to the parameters' gradients."""
        self.turn = stage, microbatch
        for x, weight, bias, grad in self._waiting.pop(self.turn):
            _accumulate(weight, [_weight_gradient(x, grad)])
            if bias is not None:
                _accumulate(bias, [_bias_gradient(grad)])
        self.turn = None

    def linear(self, x: Tensor, weight: nn.Parameter, bias: nn.Parameter | None = None) -> Tensor:
        """The product x W^T + b whose weight gradients can wait."""
        return _Linear.apply(x, weight, bias, self)

    def take(self, product: Product) -> bool:
        """Keep a product for W; False where no deferral is open."""
        if self._open is None:
            return False
        self._open.append(product)
        for parameter in product[1:3]:
            if parameter in self.on_taken:
                self.on_taken[parameter]()
        return True


class _Linear(torch.autograd.Function):
    """functional.linear with a backward that asks the deferral first."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: nn.Parameter, bias: nn.Parameter | None, deferral: Deferral
    ) -> Tensor:
        """[..., k] -> [..., n]."""
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.deferral = weight, bias, deferral
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """dx, and dW and db unless they wait."""
        (x,) = ctx.saved_tensors
        before = grad @ ctx.weight
        if ctx.deferral.take((x.detach(), ctx.weight, ctx.bias, grad)):
            return before, None, None, None
        bias = None if ctx.bias is None else _bias_gradient(grad)
        return before, _weight_gradient(x, grad), bias, None


class _Accumulate(torch.autograd.Function):
    """A scalar whose backward gives a parameter a gradient, hooks included.

    made: the gradient alone, which is taken out, so that nobody else holds it and autograd may keep
    the tensor instead of a copy.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, made: list[Tensor]) -> Tensor:
        """Zero."""
        ctx.made = made
        return parameter.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient."""
        return ctx.made.pop(), None


def _accumulate(parameter: nn.Parameter, made: list[Tensor]) -> None:
    _Accumulate.apply(parameter, made).backward()


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    return grad.flatten(0, -2).T @ x.flatten(0, -2)


def _bias_gradient(grad: Tensor) -> Tensor:
    return grad.flatten(0, -2).sum(dim=0)


def deferred(module: nn.Module) -> set[nn.Parameter]:
    """The parameters of a module whose gradients can wait."""
    found: set[nn.Parameter | None] = set()
    for each in module.modules():
        if isinstance(each, nn.Linear):
            found |= {each.weight, each.bias}
        elif isinstance(each, RowParallelLinear):
            found.add(each.weight)
    return {parameter for parameter in found if parameter is not None}


def split(model: Transformer) -> Deferral:
    """Let every linear of a model put its weight gradients aside on demand."""
    deferral = Deferral()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = functools.partial(_forward, module, deferral)
        elif isinstance(module, RowParallelLinear) and module.product is functional.linear:
            module.product = deferral.linear
    return deferral


def _forward(module: nn.Linear, deferral: Deferral, x: Tensor) -> Tensor:
    return deferral.linear(x, module.weight, module.bias)
