"""Slots: when each action of a grid runs if a slot is a forward and transfers are free.

F, I and W take one slot, B two (I + W), as the papers draw them. start(a) = max(end of the action
before it on its rank, end of the action of the neighbouring stage whose tensor it needs).
"""

from collections.abc import Mapping

from planner.schedule.action import Action, Grid, Kind
from planner.schedule.check import awaited, placement

LENGTHS: Mapping[Kind, int] = {
    Kind.FORWARD: 1,
    Kind.BACKWARD: 2,
    Kind.INPUT_GRADIENT: 1,
    Kind.WEIGHT_GRADIENT: 1,
}

Slots = tuple[tuple[tuple[int, int], ...], ...]
"""Start and end of every action of every rank."""


def slots(grid: Grid) -> Slots:
    """The slots of a compute-only grid that is free of deadlock."""
    rank_of = placement(grid)
    ends: dict[Action, int] = {}
    found: list[list[tuple[int, int]]] = [[] for _ in grid]
    moved = True
    while moved:
        moved = False
        for order, own in zip(grid, found, strict=True):
            while len(own) < len(order) and (span := _span(order[len(own)], own, rank_of, ends)):
                ends[order[len(own)]] = span[1]
                own.append(span)
                moved = True
    assert all(len(own) == len(order) for own, order in zip(found, grid, strict=True)), "deadlock"
    return tuple(tuple(own) for own in found)


def _span(
    action: Action, own: list[tuple[int, int]], rank_of: dict[int, int], ends: dict[Action, int]
) -> tuple[int, int] | None:
    """Start and end, or None while what it needs is not done."""
    needed = awaited(action, rank_of, wired=False)
    ready = [ends[other] for other in needed if other in ends]
    if needed and not ready:
        return None
    start = max([own[-1][1] if own else 0, *ready])
    return start, start + LENGTHS[action.kind]


def length(found: Slots) -> int:
    """Slots from the first action to the end of the last."""
    return max(own[-1][1] for own in found)


def idle_share(found: Slots) -> float:
    """Share of all ranks' slots without an action."""
    busy = sum(end - start for own in found for start, end in own)
    return 1 - busy / (len(found) * length(found))


def draw(grid: Grid, found: Slots) -> str:
    """One row per rank, time to the right; a B is as wide as two slots, dots are idle slots."""
    width = max(len(str(action)) for order in grid for action in order) + 1
    rank_width = len(str(len(grid) - 1))
    slots_all = range(length(found))
    head = " " * (rank_width + 8) + "".join(str(slot).ljust(width) for slot in slots_all)
    rows = [
        f"rank {rank:>{rank_width}} | {_row(order, own, width)}"
        for rank, (order, own) in enumerate(zip(grid, found, strict=True))
    ]
    return "\n".join(line.rstrip() for line in [head, *rows])


def _row(order: tuple[Action, ...], own: tuple[tuple[int, int], ...], width: int) -> str:
    cells, now = [], 0
    for action, (start, end) in zip(order, own, strict=True):
        cells += [".".ljust(width)] * (start - now)
        cells.append(str(action).ljust((end - start) * width - 1, "-" if end - start > 1 else " "))
        cells.append(" ")
        now = end
    return "".join(cells)
