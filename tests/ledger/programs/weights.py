"""Weights: the same whole values on every rank, of which a rank keeps its part; activations."""

import functools
import zlib

import torch
from torch import nn
from torch.nn import functional

from tests.ledger.programs.axes import Group, index, size

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
}


def weight(name: str, *shape: int, dim: int = 0, group: Group = None) -> nn.Parameter:
    """A tensor drawn by its name, in the default dtype, cut along dim.

    Parts are as large as ceil(extent / ranks); the last one may be smaller.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    whole = torch.randn(shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5
    each = -(-shape[dim] // size(group))
    start = min(index(group) * each, shape[dim])
    mine = whole.narrow(dim, start, min(each, shape[dim] - start))
    return nn.Parameter(mine.to(torch.get_default_dtype()).clone())
