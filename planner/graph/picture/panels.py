"""Panels: the columns, rows and bands of a collapsed graph.

Towers (encoder, decoder) are columns; what belongs to no tower stands in the column of what it
reads. In a panel an operator stands one row below the last thing it reads there; what reads other
columns only (keys and values of the encoder's output) stands one row above its first reader.
Operators whose local names begin alike (`attention`, `mlp`) share a band, if no two bands share a
row.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from planner.graph.operator import Collective, Node, Operator
from planner.graph.picture.collapse import Collapsed
from planner.graph.picture.scene import BOX_HEIGHT, PANEL_PAD, row_top
from planner.graph.structure.outline import Part


@dataclass(frozen=True)
class Leaf:
    """A panel to be.

    part: of one block. column: its column. rows: of its operators. bands: first and last row of
    each. opens, closes: frames that begin before it and end after it.
    """

    part: Part
    column: int = 0
    rows: Mapping[Node, int] = field(default_factory=dict)
    bands: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    opens: int = 0
    closes: int = 0

    @property
    def height(self) -> float:
        """From the top of the panel to its bottom."""
        return row_top(self.depth - 1) + BOX_HEIGHT + PANEL_PAD

    @property
    def depth(self) -> int:
        """How many rows there are."""
        return 1 + max(self.rows.values())

    def name(self, node: Node) -> str:
        """The name of an operator in its panel, without what its band says already."""
        name = self.part.members[0].local(node)
        group, rest = _parted(name)
        name = (rest if group in self.bands and rest else name).removesuffix(":0")
        return name if isinstance(node, Collective) or not name.isdecimal() else node.kind


def _parted(local: str) -> tuple[str, str]:
    """`attention.q` and `attention:3` to `attention` and the rest."""
    parts = re.split("[.:]", local, maxsplit=1)
    return parts[0], "".join(parts[1:])


def leaves(drawn: Collapsed) -> list[Leaf]:
    """The panels of a collapsed graph, in order."""
    found: list[Leaf] = []
    towers: dict[str, int] = {}
    column_of: dict[Node, int] = {}
    for leaf in _nested(drawn.parts):
        nodes = leaf.part.members[0].nodes
        column = _column(drawn.graph, leaf.part, towers, column_of)
        column_of |= dict.fromkeys(nodes, column)
        rows = _rows(drawn.graph, nodes, column_of)
        found.append(replace(leaf, column=column, rows=rows, bands=_bands(leaf.part, rows)))
    return found


def _nested(parts: Iterable[Part]) -> list[Leaf]:
    found: list[Leaf] = []
    for part in parts:
        inner = _nested(part.parts) or [Leaf(part)]
        if part.parts:
            inner[0] = replace(inner[0], opens=inner[0].opens + 1)
            inner[-1] = replace(inner[-1], closes=inner[-1].closes + 1)
        found += inner
    return found


def _column(
    graph: nx.DiGraph, part: Part, towers: dict[str, int], column_of: Mapping[Node, int]
) -> int:
    block = part.members[0]
    read = [column_of[u] for n in block.nodes for u in graph.pred[n] if u in column_of]
    if read and not block.tower:
        return max(read)
    return towers.setdefault(block.tower, max([-1, *column_of.values()]) + 1)


def _rows(
    graph: nx.DiGraph, nodes: Sequence[Node], column_of: Mapping[Node, int]
) -> dict[Node, int]:
    inside = graph.subgraph(nodes)
    order = list(nx.topological_sort(inside))
    rows: dict[Node, int] = {}
    floating: set[Node] = set()
    for node in order:
        rows[node] = max((rows[u] + 1 for u in inside.pred[node]), default=0)
        read = graph.pred[node]
        if read and all(u in floating or column_of[u] != column_of[node] for u in read):
            floating.add(node)
    for node in reversed(order):
        if node in floating:
            rows[node] = min((rows[v] for v in inside.succ[node]), default=rows[node] + 1) - 1
    return {node: rows[node] for node in nodes}


def _bands(part: Part, rows: Mapping[Node, int]) -> dict[str, tuple[int, int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    names = {part.members[0].local(node): node for node in rows}
    heads = {_parted(name)[0] for name in names if "." in name}
    for name, node in names.items():
        group = _parted(name)[0]
        if group in heads and isinstance(node, Operator):
            groups[group].append(rows[node])
    bands = {g: (min(found), max(found)) for g, found in groups.items() if len(found) > 1}
    apart = all(a[1] < b[0] for a, b in itertools.pairwise(sorted(bands.values())))
    return bands if apart else {}
