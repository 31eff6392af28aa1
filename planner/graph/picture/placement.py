"""Placement: a collapsed graph as a scene.

A column is one layered drawing (layered.py) cut into panels (panels.py), one per part of the
collapsed graph; parts that repeat together share a frame. Panels of a column follow each other,
and a panel begins low enough that every edge from another column goes down; then panels sink
until they meet the next one, so that a decoder stands where it is needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from planner.graph.operator import Node
from planner.graph.picture import caption, layered, wiring
from planner.graph.picture.collapse import Collapsed
from planner.graph.picture.panels import Leaf, leaves
from planner.graph.picture.scene import (
    BOLD,
    BOX_HEIGHT,
    LETTER,
    PANEL_PAD,
    Band,
    Box,
    Frame,
    Pair,
    Panel,
    Scene,
    Wire,
    row_top,
)
from planner.graph.structure.outline import Part

NODE_GAP, BEND_WIDTH = 14.0, 14.0
NARROWEST, WIDEST = 120.0, 240.0
STRIP = 22.0
"""Left of the operators, for the names of bands."""
PANEL_GAP, FRAME_HEAD, FRAME_PAD = 26.0, 30.0, 16.0
USUAL = ("q", "k", "v")


@dataclass(frozen=True)
class _Column:
    """One column: its panels' numbers, and places counted from its left side.

    rows: of operators, counted through all panels. bends: of edges, in the rows they pass.
    """

    panels: tuple[int, ...]
    rows: Mapping[Node, int]
    x: Mapping[Node, float]
    bends: Mapping[Pair, tuple[float, ...]]
    width: float


def scene(drawn: Collapsed) -> Scene:
    """Place everything."""
    found = leaves(drawn)
    names = {node: leaf.name(node) for leaf in found for node in leaf.rows}
    box = _box_width(names)
    owner = {node: number for number, leaf in enumerate(found) for node in leaf.rows}
    across = [
        (u, v) for u, v in drawn.graph.edges if found[owner[u]].column != found[owner[v]].column
    ]
    tops = _tops(found, owner, across)
    columns = _columns(drawn.graph, found, box)
    lefts, width = _lefts(columns, wiring.gutter(across))
    boxes = _boxes(found, columns, tops, lefts, box)
    panels = [
        _panel(leaf, tops[number], lefts[leaf.column], columns[leaf.column].width)
        for number, leaf in enumerate(found)
    ]
    frames = _frames(drawn.parts, panels)
    wires = [
        *wiring.apart(_inner(found, columns, boxes, tops, lefts), box),
        *wiring.outer(across, boxes, {n: found[i].column for n, i in owner.items()}, lefts),
    ]
    outlines = [panel.box for panel in panels] + [frame.box for frame in frames]
    bottom = max((outline.bottom for outline in outlines), default=0.0)
    return Scene(
        boxes, names, tuple(panels), tuple(frames), tuple(wires), width, bottom + FRAME_PAD
    )


def _box_width(names: Mapping[Node, str]) -> float:
    """One width for all operators, that of the longest text within limits."""
    lines = [len(name) * BOLD + len(caption.shape(n)) * LETTER + 8 for n, name in names.items()]
    lines += [len(caption.cost(node)) * LETTER for node in names]
    return min(max(NARROWEST, max(lines, default=0.0) + 16), WIDEST)


def _columns(graph: nx.DiGraph, found: Sequence[Leaf], box: float) -> list[_Column]:
    count = 1 + max((leaf.column for leaf in found), default=-1)
    numbers = [[i for i, leaf in enumerate(found) if leaf.column == c] for c in range(count)]
    return [_column(graph, found, panels, box) for panels in numbers]


def _column(graph: nx.DiGraph, found: Sequence[Leaf], panels: Sequence[int], box: float) -> _Column:
    rows: dict[Node, int] = {}
    depth = 0
    for number in panels:
        rows |= {node: depth + row for node, row in found[number].rows.items()}
        depth += found[number].depth
    nodes = sorted(rows, key=_usual)
    at = {node: i for i, node in enumerate(nodes)}
    edges = [(at[u], at[v]) for u in nodes for v in graph.succ[u] if v in at]
    drawing = layered.Rows([rows[node] for node in nodes], edges)
    placed = layered.place(drawing, box, BEND_WIDTH, NODE_GAP)
    shift = STRIP + PANEL_PAD
    x = {node: placed.x[i] + shift for node, i in at.items()}
    bends = {
        (nodes[u], nodes[v]): tuple(value + shift for value in xs)
        for (u, v), xs in placed.bends.items()
    }
    return _Column(tuple(panels), rows, x, bends, placed.width + shift + PANEL_PAD)


def _usual(node: Node) -> int:
    """Queries, keys and values in the order in which everybody writes them."""
    last = node.name.rpartition(".")[2]
    return USUAL.index(last) if last in USUAL else -1


def _tops(found: Sequence[Leaf], owner: Mapping[Node, int], across: Sequence[Pair]) -> list[float]:
    """y of every panel: low enough, then as low as what follows allows."""
    fall = [(owner[u], owner[v], _fall(found, owner, u, v)) for u, v in across]
    tops: list[float] = []
    last: dict[int, int] = {}
    for number, leaf in enumerate(found):
        least = [leaf.opens * FRAME_HEAD]
        least += [tops[above] + height for above, below, height in fall if below == number]
        if leaf.column in last:
            above = last[leaf.column]
            least.append(tops[above] + _step(found[above], leaf))
        tops.append(max(least))
        last[leaf.column] = number
    following: dict[int, int] = {}
    for number, leaf in reversed(list(enumerate(found))):
        if leaf.column in following:
            below = following[leaf.column]
            most = [tops[below] - _step(leaf, found[below])]
            most += [tops[under] - height for above, under, height in fall if above == number]
            tops[number] = min(most)
        following[leaf.column] = number
    return tops


def _fall(found: Sequence[Leaf], owner: Mapping[Node, int], u: Node, v: Node) -> float:
    """How far below u's panel v's panel must begin at least."""
    above, below = found[owner[u]], found[owner[v]]
    foot = row_top(above.rows[u]) + BOX_HEIGHT
    return foot + wiring.fall(above.column, below.column) - row_top(below.rows[v])


def _step(above: Leaf, below: Leaf) -> float:
    """From the top of a panel to the top of the next one in its column."""
    return above.height + above.closes * FRAME_PAD + below.opens * FRAME_HEAD + PANEL_GAP


def _lefts(columns: Sequence[_Column], gutter: float) -> tuple[list[float], float]:
    """x of every column's left side, and the width of all."""
    lefts, x = list[float](), FRAME_PAD
    for column in columns:
        lefts.append(x)
        x += column.width + gutter
    return lefts, max(x - gutter, 0.0) + FRAME_PAD


def _boxes(
    found: Sequence[Leaf],
    columns: Sequence[_Column],
    tops: Sequence[float],
    lefts: Sequence[float],
    width: float,
) -> dict[Node, Box]:
    return {
        node: Box(
            lefts[leaf.column] + columns[leaf.column].x[node] - width / 2,
            top + row_top(row),
            width,
            BOX_HEIGHT,
        )
        for leaf, top in zip(found, tops, strict=True)
        for node, row in leaf.rows.items()
    }


def _panel(leaf: Leaf, top: float, left: float, width: float) -> Panel:
    bands = []
    for name, (first, last) in leaf.bands.items():
        y, bottom = top + row_top(first) - 9, top + row_top(last) + BOX_HEIGHT + 9
        bands.append(Band(name, Box(left + 6, y, width - 12, bottom - y)))
    return Panel(leaf.part, Box(left, top, width, leaf.height), tuple(bands))


def _frames(parts: Iterable[Part], panels: Iterable[Panel]) -> list[Frame]:
    """A frame around every part of several parts, outer ones first."""
    stock = iter(panels)
    found: list[Frame] = []

    def around(part: Part) -> Box:
        if not part.parts:
            return next(stock).box
        place = len(found)
        inner = [around(each) for each in part.parts]
        x, y = min(b.x for b in inner) - 10, min(b.y for b in inner) - FRAME_HEAD
        right, bottom = max(b.right for b in inner) + 10, max(b.bottom for b in inner)
        box = Box(x, y, right - x, bottom + FRAME_PAD - y)
        found.insert(place, Frame(part, box))
        return box

    for part in parts:
        around(part)
    return found


def _inner(
    found: Sequence[Leaf],
    columns: Sequence[_Column],
    boxes: Mapping[Node, Box],
    tops: Sequence[float],
    lefts: Sequence[float],
) -> list[Wire]:
    wires = []
    for column, left in zip(columns, lefts, strict=True):
        y = [tops[n] + row_top(row) for n in column.panels for row in range(found[n].depth)]
        for (u, v), xs in column.bends.items():
            passed = [(left + x, y[row]) for row, x in enumerate(xs, column.rows[u] + 1)]
            wires.append(wiring.inner(u, v, boxes, passed))
    return wires
