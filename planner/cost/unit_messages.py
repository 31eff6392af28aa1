"""Unit messages: what ZeRO 2 and 3 send in the executor of this project, unit by unit.

A unit is the embedding, a layer, the head, or the tied matrix of a rank (executor.sharded): s ranks
share its P elements (every parameter starts at a 64-byte line, the whole is rounded up to s). e are
the bytes of a weight, g of a gradient. u says how many stages of the rank use the unit: 1, but for
a tied matrix whose two ends are different stages of one rank. Per microbatch

    forward    ZeRO 3: all_gather u * P*e
    backward   ZeRO 3: all_gather u * P*e       reduce_scatter u * P*g

and once per step, i being the rank's place among the s,

    gradients  all_reduce over tp of all that i owns of replicated parameters, in one message;
               over {first, last} of what it owns of the tied matrix; with hybrid sharding over the
               copies of P/s*g, unit by unit
    optimizer  ZeRO 2: all_gather P*e
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from planner.graph.data_parallel import DataParallel, flat_elements, replicated_gradients
from planner.graph.operator import Operator
from planner.graph.view import RankView
from planner.spec.ledger import Line


@dataclass(frozen=True, slots=True)
class Unit:
    """Operators whose parameters lie together. tied: it is the tied matrix. uses: see above."""

    operators: tuple[Operator, ...]
    tied: bool = False
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A unit in memory, in elements: its size, and what rank i owns of what tp replicates and of
    the whole without the padding at its end."""

    unit: Unit
    size: int
    replicated: int
    used: int


def place(unit: Unit, how: DataParallel, view: RankView, index: int) -> Placed:
    """Lay a unit out as executor.flat does; index: the rank's place among the shards."""
    graph = nx.DiGraph()
    graph.add_nodes_from(unit.operators)
    whole = replace(how, zero=0)
    used = flat_elements(graph, whole)
    size = -(-used // how.shards) * how.shards
    sums = replicated_gradients(graph, view, whole, "")
    replicated = sum(node.message_bytes for node in sums) // how.gradient_bytes
    start, stop = index * size // how.shards, (index + 1) * size // how.shards
    owned = (max(min(end, stop) - start, 0) for end in (replicated, used))
    return Placed(unit, size, *owned)


def per_microbatch(units: Sequence[Placed], how: DataParallel) -> Iterator[tuple[Line, int]]:
    """Lines of one microbatch, with their counts."""
    for each in units:
        weights, gradients = each.size * how.weight_bytes, each.size * how.gradient_bytes
        if how.zero == 3:
            yield ("forward", "all_gather", "dp", how.shards, weights), each.unit.uses
            yield ("backward", "all_gather", "dp", how.shards, weights), each.unit.uses
        yield ("backward", "reduce_scatter", "dp", how.shards, gradients), each.unit.uses


def per_step(
    units: Sequence[Placed], how: DataParallel, tp: int, two_ends: bool
) -> Iterator[tuple[Line, int]]:
    """Lines of the reduction and the update. two_ends: other ranks hold a copy of the tied one."""
    if replicated := sum(each.replicated for each in units) * how.gradient_bytes:
        yield ("gradients", "all_reduce", "tp", tp, replicated), 1
    for each in units:
        if two_ends and each.unit.tied and each.used:
            yield ("gradients", "all_reduce", "tied", 2, each.used * how.gradient_bytes), 1
        if (copies := how.ranks // how.shards) > 1:
            own = each.size // how.shards * how.gradient_bytes
            yield ("gradients", "all_reduce", "replicas", copies, own), 1
        if how.zero == 2:
            yield ("optimizer", "all_gather", "dp", how.shards, each.size * how.weight_bytes), 1
