"""The collectives that a forward and a backward are made of, along dim 0.

all_gather       backward reduce_scatter         all_to_all   backward all_to_all
reduce_scatter   backward all_gather
copied (f)       backward all_reduce, forward nothing
summed (g)       forward all_reduce, backward nothing          (Shoeybi et al. 2019)
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from executor.parallel import collectives
from tests.ledger.programs.axes import Group, size


def _gather(x: Tensor, group: Group) -> Tensor:
    whole = x.new_empty(x.shape[0] * size(group), *x.shape[1:])
    collectives.all_gather(whole, x.contiguous(), group)
    return whole


def _scatter(x: Tensor, group: Group) -> Tensor:
    part = x.new_empty(x.shape[0] // size(group), *x.shape[1:])
    collectives.reduce_scatter(part, x.contiguous(), group)
    return part


def _sum(x: Tensor, group: Group) -> Tensor:
    total = x.contiguous().clone()
    collectives.all_reduce(total, group)
    return total


def _exchange(x: Tensor, group: Group) -> Tensor:
    received = torch.empty(x.shape, dtype=x.dtype)  # contiguous: gloo writes wrong data otherwise
    dist.all_to_all_single(received, x.contiguous(), group=group)
    return received


def _keep(x: Tensor, group: Group) -> Tensor:
    return x.view_as(x)


class _Pair(torch.autograd.Function):
    """One collective in the forward, another in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, there: Any, back: Any) -> Tensor:
        ctx.group, ctx.back = group, back
        return there(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.back(gradient, ctx.group), None, None, None


def all_gather(x: Tensor, group: Group) -> Tensor:
    return x if group is None else _Pair.apply(x, group, _gather, _scatter)


def reduce_scatter(x: Tensor, group: Group) -> Tensor:
    return x if group is None else _Pair.apply(x, group, _scatter, _gather)


def all_to_all(x: Tensor, group: Group) -> Tensor:
    return x if group is None else _Pair.apply(x, group, _exchange, _exchange)


def copied(x: Tensor, group: Group) -> Tensor:
    return x if group is None else _Pair.apply(x, group, _keep, _sum)


def summed(x: Tensor, group: Group) -> Tensor:
    return x if group is None else _Pair.apply(x, group, _sum, _keep)
