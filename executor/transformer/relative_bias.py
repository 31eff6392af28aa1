"""Relative positions as learned biases of the scores (Raffel et al. 2020, T5).

A query at position i and a key at position j share bias[bucket(j - i), head] with all pairs as
far apart. Of B buckets, half are for one direction each where both are seen. In a direction's n
buckets the first n/2 are for one distance each, the others grow in a geometric row:

    bucket(x) = n/2 + floor(log(x / (n/2)) / log(MAX / (n/2)) * n/2),  at most n - 1
"""

import math

import torch
from torch import Tensor, nn

from planner.spec.layer import Attention

FARTHEST = 128
"""Assumed: the distance from which on all share a bucket, T5's default; a ModelSpec has no key."""


class RelativeBias(nn.Module):
    """The biases that all layers of a stack share."""

    def __init__(self, of: Attention):
        super().__init__()
        self.causal = of.causal
        self.weight = nn.Parameter(torch.empty(of.relative_buckets, of.heads))

    def forward(self, tokens: int) -> Tensor:
        """[1, heads, tokens, tokens]: query, key; -inf where a causal query must not look."""
        places = torch.arange(tokens, device=self.weight.device)
        apart = places[None, :] - places[:, None]
        bias = self.weight[_buckets(apart, len(self.weight), self.causal)].permute(2, 0, 1)
        if self.causal:
            bias = bias.masked_fill(apart > 0, -math.inf)
        return bias.unsqueeze(0)


def _buckets(apart: Tensor, count: int, causal: bool) -> Tensor:
    if causal:
        return _of_distance((-apart).clamp(min=0), count)
    half = count // 2
    return _of_distance(apart.abs(), half) + half * (apart > 0)


def _of_distance(distance: Tensor, count: int) -> Tensor:
    near = count // 2
    ratio = torch.log(distance.clamp(min=1).double() / near) / math.log(FARTHEST / near)
    far = (near + (ratio * (count - near)).long()).clamp(max=count - 1)
    return torch.where(distance < near, distance, far)
