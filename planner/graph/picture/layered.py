"""Layered drawing of a graph without cycles (Sugiyama, Tagawa and Toda 1981).

Every node has a row; edges go from a row to a later one. An edge that passes rows in between gets
a bend in each, which needs little room, so that no edge runs through a node.

Order: within a row by the mean place of the neighbours in the row before, then in the row after,
SWEEPS times; the order with the fewest crossings is kept. Places: see coordinates.py. Everything
is decided by the order of the input, never by chance or by hashes.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from planner.graph.picture.coordinates import coordinates

SWEEPS = 8

Edge = tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """A graph in rows. row: of each node 0 .. n-1; edges point to later rows."""

    row: Sequence[int]
    edges: Sequence[Edge]

    def __post_init__(self) -> None:
        assert all(self.row[u] < self.row[v] for u, v in self.edges), "edges go down"


@dataclass(frozen=True)
class Placed:
    """x of every node's centre, and x of every edge in the rows that it passes; from 0 to width."""

    x: tuple[float, ...]
    bends: Mapping[Edge, tuple[float, ...]]
    width: float


@dataclass
class _Drawing:
    """Nodes and bends as numbers, bends last, in rows from left to right."""

    nodes: int
    rows: list[list[int]]
    before: list[list[int]]
    after: list[list[int]]
    chains: dict[Edge, list[int]] = field(default_factory=dict)


def place(graph: Rows, node_width: float, bend_width: float, gap: float) -> Placed:
    """Order every row and give each node its place."""
    drawing = _with_bends(graph)
    _order(drawing)
    x = _positions(drawing, node_width, bend_width, gap)
    half = [(node_width if i < drawing.nodes else bend_width) / 2 for i in range(len(x))]
    left = min((value - h for value, h in zip(x, half, strict=True)), default=0.0)
    right = max((value + h for value, h in zip(x, half, strict=True)), default=0.0)
    moved = [value - left for value in x]
    bends = {edge: tuple(moved[i] for i in chain) for edge, chain in drawing.chains.items()}
    return Placed(tuple(moved[: drawing.nodes]), bends, right - left)


def _with_bends(graph: Rows) -> _Drawing:
    nodes = len(graph.row)
    rows: list[list[int]] = [[] for _ in range(max(graph.row, default=-1) + 1)]
    for node, row in enumerate(graph.row):
        rows[row].append(node)
    drawing = _Drawing(nodes, rows, [[] for _ in range(nodes)], [[] for _ in range(nodes)])
    for u, v in dict.fromkeys(graph.edges):
        chain = []
        for row in range(graph.row[u] + 1, graph.row[v]):
            chain.append(len(drawing.before))
            rows[row].append(chain[-1])
            drawing.before.append([])
            drawing.after.append([])
        drawing.chains[u, v] = chain
        for a, b in itertools.pairwise([u, *chain, v]):
            drawing.after[a].append(b)
            drawing.before[b].append(a)
    return drawing


def _order(drawing: _Drawing) -> None:
    best, least = [list(row) for row in drawing.rows], crossings(drawing)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        rows = drawing.rows if down else drawing.rows[::-1]
        neighbours = drawing.before if down else drawing.after
        for fixed, row in itertools.pairwise(rows):
            place = {item: float(i) for i, item in enumerate(fixed)}
            centre = {
                item: _mean([place[o] for o in neighbours[item]], i) for i, item in enumerate(row)
            }
            row.sort(key=centre.__getitem__)
        if (found := crossings(drawing)) < least:
            best, least = [list(row) for row in drawing.rows], found
    drawing.rows[:] = best


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def crossings(drawing: _Drawing) -> int:
    """Pairs of edges between neighbouring rows that cross."""
    count = 0
    for upper, lower in itertools.pairwise(drawing.rows):
        place = {item: i for i, item in enumerate(lower)}
        ends = [sorted(place[b] for b in drawing.after[a]) for a in upper]
        for left, right in itertools.combinations(ends, 2):
            count += sum(a > b for a in left for b in right)
    return count


def _positions(drawing: _Drawing, node: float, bend: float, gap: float) -> list[float]:
    def apart(left: int, right: int) -> float:
        half_widths = (node if item < drawing.nodes else bend for item in (left, right))
        return sum(half_widths) / 2 + gap

    bends = frozenset(range(drawing.nodes, len(drawing.before)))
    return coordinates(drawing.rows, drawing.before, drawing.after, bends, apart)
