"""Wiring: the lines that edges are drawn as.

Inside a column a line leaves an operator at its lower side, passes the rows in between at its
bends and ends on the upper side of the reader. Lines that share an operator leave and arrive a
little apart. Between columns a line runs below the row of what is read to the gutter, down, and
above the row of its reader to it. A column in between it passes between two rows, the next below
where it comes from. So no line crosses an operator.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from planner.graph.operator import Node
from planner.graph.picture.scene import BOX_HEIGHT, Box, Pair, Point, Wire

GUTTER, LANE = 64.0, 8.0
"""Width of the space between columns, and of each line that runs down in it."""
STUB = 11.0
"""How far below and above an operator a line turns."""
CLEAR = 2.0
"""How far a line keeps from the operators of a column that it passes."""
PORT = 16.0
"""Between the ends of lines at one operator."""


def inner(u: Node, v: Node, boxes: Mapping[Node, Box], passed: Iterable[Point]) -> Wire:
    """A line inside a column. passed: the upper end of every bend."""
    points = [(boxes[u].middle, boxes[u].bottom)]
    for x, y in passed:
        points += [(x, y), (x, y + BOX_HEIGHT)]
    points.append((boxes[v].middle, boxes[v].y))
    return Wire((u, v), tuple(points), across=False)


def gutter(across: Iterable[Pair]) -> float:
    """How wide the space between columns must be."""
    return GUTTER + LANE * len({u for u, _ in across})


def fall(start: int, end: int) -> float:
    """How far below what is read a reader in another column must be, to pass what is between."""
    return 2 * STUB + (abs(start - end) - 1) * (BOX_HEIGHT + 2 * CLEAR)


def outer(
    across: Sequence[Pair],
    boxes: Mapping[Node, Box],
    column: Mapping[Node, int],
    lefts: Sequence[float],
) -> list[Wire]:
    """The lines between columns; those from one operator share a lane in every gutter."""
    lane = {u: number for number, u in enumerate(dict.fromkeys(u for u, _ in across))}
    standing = [[boxes[n] for n in boxes if column[n] == each] for each in range(len(lefts))]
    wires = []
    for u, v in across:
        start, end = boxes[u], boxes[v]
        y, over = start.bottom + STUB, end.y - STUB
        points = [(start.middle, start.bottom), (start.middle, y)]
        for left, passed in _way(column[u], column[v]):
            x = lefts[left] - GUTTER / 2 - lane[u] * LANE
            lower = over if passed is None else _clear(standing[passed], y)
            points += [(x, y), (x, lower)]
            y = lower
        points += [(end.middle, over), (end.middle, end.y)]
        wires.append(Wire((u, v), tuple(points), across=True))
    return wires


def _way(start: int, end: int) -> list[tuple[int, int | None]]:
    """Each gutter, as the column right of it, and the column to pass behind it, if any."""
    if start < end:
        return [(right, right if right < end else None) for right in range(start + 1, end + 1)]
    return [(right, right - 1 if right - 1 > end else None) for right in range(start, end, -1)]


def _clear(column: Iterable[Box], y: float) -> float:
    """The first height from y on at which a line passes between the operators of a column."""
    for box in sorted(column, key=lambda each: each.y):
        if box.y - CLEAR < y < box.bottom + CLEAR:
            y = box.bottom + CLEAR
    return y


def apart(wires: Sequence[Wire], width: float) -> list[Wire]:
    """Move the ends of lines at one operator apart, the straightest in the middle."""
    leaving: dict[Node, list[tuple[float, int]]] = defaultdict(list)
    coming: dict[Node, list[tuple[float, int]]] = defaultdict(list)
    points = [list(wire.points) for wire in wires]
    for number, wire in enumerate(wires):
        leaving[wire.ends[0]].append((wire.points[1][0] - wire.points[0][0], number))
        coming[wire.ends[1]].append((wire.points[-2][0] - wire.points[-1][0], number))
    for end, groups in ((0, leaving), (-1, coming)):
        for group in groups.values():
            for shift, number in _shifts(sorted(group), width):
                x, y = points[number][end]
                points[number][end] = (x + shift, y)
    return [replace(wire, points=tuple(p)) for wire, p in zip(wires, points, strict=True)]


def _shifts(group: Sequence[tuple[float, int]], width: float) -> list[tuple[float, int]]:
    nearest = min(range(len(group)), key=lambda i: abs(group[i][0]))
    step = min(PORT, (width / 2 - 12) / max(nearest, len(group) - 1 - nearest, 1))
    return [((i - nearest) * step, number) for i, (_, number) in enumerate(group)]
