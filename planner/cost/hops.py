"""Hops: what a message takes over each link of one pipeline, where a profile knows links apart.

Link s joins the ranks of stage s with those of stage s + 1; all its pairs of ranks (one per replica
and tensor-parallel rank) send at once. Where some of them lie in two nodes, those are the slowest,
and as many share the ways out of their nodes. So the pairs of link s are those that cross nodes, or
all where none does, and

    hop    = seconds of the activations of one microbatch between two ranks, so many pairs at once
    notice = seconds of a message of next to no bytes on the same way

A message needs its receiver's word that it is ready (the rendezvous of gloo): where the receiver
comes late, its word takes a notice before the message starts (planner.simulator.tasks).

The closed form (planner.cost.stages) takes the slowest hop for all of them. Left out: links of
several stages that share a way, as two pipelines that leave one node at different stages do.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.collectives import Floats
from planner.spec.layout import Layout


class Hops(NamedTuple):
    """Seconds of a message and of its receiver's word, by link, [stages - 1]; 0 between stages of
    one rank."""

    messages: Floats
    notices: Floats


def hops(blocks: Blocks, layout: Layout, places: list[int], size: float, slowest: float) -> Hops:
    """Of a pipeline whose stages lie on these pipeline ranks, for messages of `size` bytes.

    slowest: what a message takes where nobody measured such a pair.
    """
    found = [
        _link(blocks, layout, one, other, size, slowest) if one != other else (0.0, 0.0)
        for one, other in pairwise(places)
    ]
    columns = np.array(found).reshape(-1, 2).T
    return Hops(*columns)


def _link(
    blocks: Blocks, layout: Layout, one: int, other: int, size: float, slowest: float
) -> tuple[float, float]:
    nodes, pairs = _pairs(layout, one, other, blocks.cluster.devices_per_node)
    stride = abs(other - one) * layout.stride("pp")
    curve = blocks.collectives.between(nodes, stride, pairs)
    if curve is None:
        return slowest, 0.0
    message, notice = curve(np.array([size, 1.0])).tolist()
    return message, notice


def _pairs(layout: Layout, one: int, other: int, per_node: int) -> tuple[int, int]:
    """Over how many nodes the worst placed pairs of ranks are spread, and how many those are."""
    apart = (other - one) * layout.stride("pp")
    ranks = [r for r in range(layout.devices) if layout.coordinates(r)["pp"] == one]
    crossing = sum(r // per_node != (r + apart) // per_node for r in ranks)
    return (2, crossing) if crossing else (1, len(ranks))
