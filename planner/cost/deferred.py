"""Deferred: what a split backward puts aside between I and W, as the executor of this project does.

A product y = x W^T of a Transformer (not one of experts) needs x and dy for dW, so I leaves both
and lets go of all else that the microbatch has kept, also of what it has recomputed. Products that
read the same x leave it once, and so do those added to one residual stream with their dy (attention
and MLP side by side). Of products (m, k) x (k, n), e bytes an element, one block puts aside

    sum over x of m k e  +  sum over dy of m n e

A layer that recomputes has its checkpoint until I, and from I to W all this instead.
Left out: gradients that I makes of what is no matrix, and that wait for W with ZeRO 2 and 3.
"""

from dataclasses import dataclass

import networkx as nx

from planner.cost.column import larger
from planner.graph import transformer
from planner.graph.operator import Operator


@dataclass(frozen=True, slots=True)
class Aside:
    """Of one block and microbatch: bytes put aside, and of the largest weight gradient that W
    makes of them."""

    held: int = 0
    largest: int = 0

    @classmethod
    def of(cls, graph: nx.DiGraph, size: int) -> "Aside":
        """From a block's graph, also of a column of views. size: bytes of an element."""
        inputs: dict[object, int] = {}
        gradients: dict[object, int] = {}
        largest = 0
        for op in transformer.operators(graph):
            if op.kind != "linear" or op.expert:
                continue
            dims = dict(op.dims)
            inputs[frozenset(graph.predecessors(op))] = dims["m"] * dims["k"]
            after = frozenset(graph.successors(op))
            added = all(isinstance(n, Operator) and n.kind == "residual" for n in after)
            gradients[after if after and added else op] = dims["m"] * dims["n"]
            largest = larger(largest, dims["k"] * dims["n"])
        held = sum(inputs.values()) + sum(gradients.values())
        return cls(held * size, largest * size)
