"""A graph with every repetition drawn once: 126 layers become one layer, 126 times.

Every operator is stood for by the one in the first copy of its block. An edge between blocks is
kept where it leads from a part to a later one; an edge from a copy to the next copy, which the
count says already, is not. The parts are in topological order, so no cycle is left.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import networkx as nx

from planner.graph.operator import Node
from planner.graph.structure import outline
from planner.graph.structure.outline import Block, Part


@dataclass(frozen=True)
class Collapsed:
    """parts: the outline, in order; graph: the operators that stand for others; of: for whom."""

    parts: tuple[Part, ...]
    graph: nx.DiGraph
    of: dict[Node, Node]


def collapse(graph: nx.DiGraph) -> Collapsed:
    """Draw every repetition once."""
    parts = outline.outline(graph)
    of: dict[Node, Node] = {}
    place: dict[Node, tuple[int, int]] = {}
    for number, leaf in enumerate(leaves(parts)):
        for copy, block in enumerate(leaf.members):
            for node, first in zip(block.nodes, leaf.members[0].nodes, strict=True):
                of[node], place[node] = first, (number, copy)
    small = nx.DiGraph()
    small.add_nodes_from(first for node, first in of.items() if node == first)
    order = {node: i for i, node in enumerate(small)}
    kept = {
        (of[u], of[v]) for u, v in graph.edges if place[u] == place[v] or place[u][0] < place[v][0]
    }
    small.add_edges_from(sorted(kept, key=lambda edge: (order[edge[0]], order[edge[1]])))
    return Collapsed(parts, small, of)


def leaves(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts that are one block each, in order."""
    for part in parts:
        if part.parts:
            yield from leaves(part.parts)
        else:
            yield part


def ranges(blocks: Iterable[Block]) -> str:
    """Which layers: `0–79`, or `5, 11, … 59` for layers that return regularly."""
    numbers = [block.index for block in blocks if block.index is not None]
    pieces: list[list[int]] = []
    for number in numbers:
        if pieces and pieces[-1][-1] + 1 == number:
            pieces[-1].append(number)
        else:
            pieces.append([number])
    shown = [f"{p[0]}–{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in pieces]
    if len(shown) > 4:
        shown = [*shown[:2], "…", shown[-1]]
    return ", ".join(shown).replace("…,", "…")


def series_name(block: Block) -> str:
    """What the layers of one chain are called together: `encoder.layer`, `model.layers`."""
    return block.name if block.index is None else block.name.rstrip("0123456789").rstrip("._")
