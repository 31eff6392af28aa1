"""Rotary positions (Su et al. 2021) of the first part of every head (Black et al. 2022)."""

import math

import torch
from torch import Tensor, nn

from executor.sequence_cut import SequenceCut
from planner.spec.layer import Attention


class Rotary(nn.Module):
    """Tables of rotary positions: angle = position / theta^(2i/r), shape [tokens, 1, r].

    r is rotary_dim, the first elements of a head, which are rotated; the others stay.
    """

    def __init__(self, spec: Attention, tokens: int):
        super().__init__()
        self.theta = spec.rope_theta
        empty = torch.empty(tokens, 1, spec.rotary_dim)
        self.register_buffer("cos", empty, persistent=False)
        self.register_buffer("sin", empty.clone(), persistent=False)

    def fill(self, cut: SequenceCut | None = None) -> None:
        """Compute the tables in fp64 and round them to the buffers' format. cut: the positions of
        the rows, 0, 1, .. without it."""
        width = self.cos.shape[-1]
        pairs = torch.arange(0, width, 2, dtype=torch.float64) / width
        positions = (cut or SequenceCut(len(self.cos))).positions().double()
        angles = torch.outer(positions, torch.exp(-math.log(self.theta) * pairs))
        both = torch.cat((angles, angles), dim=-1)[:, None, :]
        self.cos.copy_(both.cos())
        self.sin.copy_(both.sin())

    def forward(self, x: Tensor) -> Tensor:
        """Rotate [b, s, heads, d]: the pairs are (x_i, x_(i + r/2)), as in Llama."""
        width = self.cos.shape[-1]
        if width == x.shape[-1]:
            return self._rotated(x)
        return torch.cat((self._rotated(x[..., :width]), x[..., width:]), dim=-1)

    def _rotated(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin
