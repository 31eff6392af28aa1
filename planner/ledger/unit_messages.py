"""Unit messages: what ZeRO 2 and 3 send in the executor of this project, unit by unit.

A unit is the embedding, a layer, the head, or the tied matrix of a rank (executor.states.sharded):
s ranks share its P elements (every parameter starts at a 64-byte line, the whole is rounded up to
s). e are the bytes of a weight, g of a gradient. u says how many stages of the rank use the unit:
1, but for a tied matrix whose two ends are different stages of one rank. Per microbatch

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
from planner.spec.ledger import Group, Line


@dataclass(frozen=True, slots=True)
class Unit:
    """Operators whose parameters lie together. tied: it is the tied matrix. uses: see above.

    experts: they are those of experts. largest: what the first ranks of tp hold of it, more where a
    vocabulary is not even; a unit that tp replicates in part is as long on all of them.
    """

    operators: tuple[Operator, ...]
    largest: tuple[Operator, ...]
    tied: bool = False
    uses: int = 1
    experts: bool = False

    @property
    def group(self) -> Group:
        """The ranks that share it."""
        return "edp" if self.experts else "dp"


@dataclass(frozen=True, slots=True)
class Placed:
    """A unit in memory, in elements: its size, and what rank i owns of what tp replicates and of
    the whole without the padding at its end. how: it is shared."""

    unit: Unit
    how: DataParallel
    size: int
    replicated: int
    used: int


def place(unit: Unit, how: DataParallel, view: RankView, index: int) -> Placed:
    """Lay a unit out as executor.states.flat does; index: the rank's place among the shards."""
    graph, longest = nx.DiGraph(), nx.DiGraph()
    graph.add_nodes_from(unit.operators)
    longest.add_nodes_from(unit.largest)
    whole = replace(how, zero=0)
    used = flat_elements(graph, whole)
    sums = replicated_gradients(graph, view, whole, "")
    replicated = sum(node.message_bytes for node in sums) // how.gradient_bytes
    length = flat_elements(longest, whole) if replicated else used
    size = -(-length // how.shards) * how.shards
    start, stop = index * size // how.shards, (index + 1) * size // how.shards
    owned = (max(min(end, stop) - start, 0) for end in (replicated, used))
    return Placed(unit, how, size, *owned)


def per_microbatch(units: Sequence[Placed]) -> Iterator[tuple[Line, int]]:
    """Lines of one microbatch, with their counts. A unit of one rank sends nothing."""
    for each in (each for each in units if each.how.shards > 1):
        how, group, uses = each.how, each.unit.group, each.unit.uses
        weights, gradients = each.size * how.weight_bytes, each.size * how.gradient_bytes
        if how.zero == 3:
            yield ("forward", "all_gather", group, how.shards, weights), uses
            yield ("backward", "all_gather", group, how.shards, weights), uses
        yield ("backward", "reduce_scatter", group, how.shards, gradients), uses


def per_step(units: Sequence[Placed], tp: int, two_ends: bool) -> Iterator[tuple[Line, int]]:
    """Lines of the reduction and the update. two_ends: other ranks hold a copy of the tied one."""
    if replicated := sum(each.replicated * each.how.gradient_bytes for each in units):
        yield ("gradients", "all_reduce", "tp", tp, replicated), 1
    for each in units:
        how = each.how
        if two_ends and each.unit.tied and each.used:
            yield ("gradients", "all_reduce", "tied", 2, each.used * how.gradient_bytes), 1
        if (copies := how.ranks // how.shards) > 1:
            own = each.size // how.shards * how.gradient_bytes
            yield ("gradients", "all_reduce", "replicas", copies, own), 1
        if how.zero == 2 and how.shards > 1:
            weights = each.size * how.weight_bytes
            yield ("optimizer", "all_gather", each.unit.group, how.shards, weights), 1
