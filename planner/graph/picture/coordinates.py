"""Coordinates: x of the items of ordered rows, with long straight lines (Brandes and Köpf 2001).

Every item is put right below (or above) one of its middle neighbours where that crosses no line
that was drawn before; the items so chained share one x. Chains are packed to one side, then each
is pulled back as far as its neighbour on the other side allows. That is done four ways, down or
up and to the left or to the right, and an item's place is the mean of the two middle ones of the
four, after the four are shifted onto the narrowest. Departure from the paper: where a node could
be chained to a node or to a bend, it is the node, so that a chain of operators is straight and
its long edges step aside.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

Rows = Sequence[Sequence[int]]
Neighbours = Sequence[Sequence[int]]
Apart = Callable[[int, int], float]
Pair = tuple[int, int]


def coordinates(
    rows: Rows,
    before: Neighbours,
    after: Neighbours,
    bends: AbstractSet[int],
    apart: Apart,
) -> list[float]:
    """x of every item. apart: the least distance of two neighbours in a row."""
    crossed = _crossed(rows, after, bends)
    ways: list[list[float]] = []
    for down in (True, False):
        for left in (True, False):
            turned = rows if down else rows[::-1]
            turned = turned if left else [row[::-1] for row in turned]
            above, below = (before, after) if down else (after, before)
            root = _chained(turned, above, below, crossed, bends)
            x = _packed(turned, root, apart)
            ways.append(x if left else [-value for value in x])
    return _balanced(ways)


def _crossed(rows: Rows, after: Neighbours, bends: AbstractSet[int]) -> set[Pair]:
    """Edges, both ways round, that cross the straight part of a long edge."""
    place = {item: i for row in rows for i, item in enumerate(row)}
    found: set[Pair] = set()
    for row in rows:
        edges = [(a, b) for a in row for b in after[a]]
        straight = [(a, b) for a, b in edges if a in bends and b in bends]
        for a, b in edges:
            for c, d in straight:
                across = (place[a] - place[c]) * (place[b] - place[d]) < 0
                if across and not (a in bends and b in bends):
                    found |= {(a, b), (b, a)}
    return found


def _chained(
    rows: Rows,
    above: Neighbours,
    below: Neighbours,
    crossed: AbstractSet[Pair],
    bends: AbstractSet[int],
) -> list[int]:
    """The first item of the chain of every item."""
    place = {item: i for row in rows for i, item in enumerate(row)}
    wanted = {
        item for row in rows for item in row if any(o not in bends for o in below[item])
    } - bends
    root = list(range(len(above)))
    for row in rows:
        taken = -1
        for item in row:
            for other in _middle(sorted(above[item], key=place.__getitem__), bends):
                left_to_nodes = item in bends and other in wanted
                if taken < place[other] and not left_to_nodes and (other, item) not in crossed:
                    root[item], taken = root[other], place[other]
                    break
    return root


def _middle(ordered: Sequence[int], bends: AbstractSet[int]) -> list[int]:
    """The middle one or two of the neighbours, nodes first."""
    count = len(ordered)
    two = ordered[(count - 1) // 2 : count // 2 + 1]
    return sorted(two, key=lambda item: item in bends)


def _packed(rows: Rows, root: Sequence[int], apart: Apart) -> list[float]:
    """Every chain as far left as it goes, then right until it meets what stands there."""
    room: dict[int, dict[int, float]] = defaultdict(dict)
    waits: dict[int, int] = defaultdict(int)
    for row in rows:
        for a, b in itertools.pairwise(row):
            left, right = root[a], root[b]
            waits[right] += right not in room[left]
            room[left][right] = max(room[left].get(right, 0.0), apart(a, b))
    order = _sorted(sorted(set(root)), room, waits)
    x = dict.fromkeys(order, 0.0)
    for chain in order:
        for other, least in room[chain].items():
            x[other] = max(x[other], x[chain] + least)
    for chain in reversed(order):
        if room[chain]:
            x[chain] = max(x[chain], min(x[o] - least for o, least in room[chain].items()))
    return [x[chain] for chain in root]


def _sorted(
    chains: Sequence[int], room: Mapping[int, Mapping[int, float]], waits: Mapping[int, int]
) -> list[int]:
    """Chains from left to right."""
    left = {chain: waits.get(chain, 0) for chain in chains}
    order = [chain for chain in chains if not left[chain]]
    for chain in order:
        for other in room.get(chain, {}):
            left[other] -= 1
            if not left[other]:
                order.append(other)
    assert len(order) == len(chains), "chains never cross"
    return order


def _balanced(ways: Sequence[Sequence[float]]) -> list[float]:
    if not ways[0]:
        return []
    narrow = min(ways, key=lambda way: max(way) - min(way))
    shifted = [
        [
            value + (max(narrow) - max(way) if number % 2 else min(narrow) - min(way))
            for value in way
        ]
        for number, way in enumerate(ways)
    ]
    middles = [sorted(values)[1:3] for values in zip(*shifted, strict=True)]
    return [sum(pair) / 2 for pair in middles]
