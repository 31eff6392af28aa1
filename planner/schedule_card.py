"""Schedule card: what `meshwright show schedule NAME` says of a schedule of given numbers."""

from typing import Any

from planner.schedule import alive, orders, sheet, slots, units
from planner.schedule.orders import Orders
from planner.spec.documents import InputError
from planner.spec.runtime import SCHEDULES

Rows = list[dict[str, Any]]
MOST_CELLS = 1_000_000
"""Forwards of a grid that is printed: 20 s and 40 MB of text."""


def rows() -> Rows:
    """Every schedule by name, and what it asks for."""
    return [
        {
            "name": name,
            "chunks": "1" if name in orders.ONE_CHUNK else "2" if _turns(name) else "any",
            "stages": "V" if _turns(name) else "loop",
            "backward": "split" if name in orders.SPLIT else "whole",
            "microbatches": _asked(name),
        }
        for name in SCHEDULES
    ]


def _turns(name: str) -> bool:
    return name in orders.V_SHAPED


def _asked(name: str) -> str:
    if name == "dualpipev":
        return "at least 2 * ranks"
    return "whole rounds (multiples of ranks)" if name in orders.IN_ROUNDS else "any"


def find(name: str, ranks: int | None, microbatches: int | None, chunks: int | None) -> Orders:
    """The orders of a named schedule. Raises InputError with the way out."""
    if name not in SCHEDULES:
        raise InputError(f"show schedule: {orders.problem(name, 1, 1, 1)}")
    if ranks is None or microbatches is None:
        raise InputError("show schedule: say how large: --ranks 4 --microbatches 8")
    chunks = orders.default_chunks(name) if chunks is None else chunks
    if wrong := orders.problem(name, ranks, chunks, microbatches):
        raise InputError(f"show schedule: {wrong}")
    if (cells := ranks * chunks * microbatches) > MOST_CELLS:
        raise InputError(
            f"show schedule: {name} of ranks={ranks}, chunks={chunks} and microbatches="
            f"{microbatches} has {cells:,} forwards; choose numbers with at most {MOST_CELLS:,}"
        )
    return orders.orders(name, ranks, microbatches, chunks)


def refuse_options(what: str, *options: object) -> None:
    """Raise InputError if options of `show schedule NAME` are given with something else."""
    if any(options):
        raise InputError(
            f"show {what}: --ranks, --microbatches, --chunks and --communication belong to "
            f"`show schedule NAME`; name a schedule or leave them out"
        )


def card(made: Orders) -> dict[str, Any]:
    """The schedule as one JSON value; slots as in planner.schedule.slots."""
    grid = orders.grid(made)
    found = slots.slots(grid)
    return {
        "schema": "schedule/1",
        "schedule": made.schedule,
        "ranks": made.ranks,
        "chunks": made.chunks,
        "microbatches": made.microbatches,
        "rank_of_stage": made.rank_of_stage.tolist(),
        "in_flight": alive.in_flight(made).tolist(),
        "slots": slots.length(found),
        "idle_share": slots.idle_share(found),
        "orders": [
            [{"action": str(a), "start": s, "end": e} for a, (s, e) in zip(*pair, strict=True)]
            for pair in zip(grid, found, strict=True)
        ],
    }


def drawing(made: Orders) -> str:
    """The grid as papers draw it, under a line of facts."""
    grid = orders.grid(made)
    found = slots.slots(grid)
    held = ",".join(map(str, alive.in_flight(made).tolist()))
    facts = (
        f"{made.schedule}: {made.ranks} ranks, {made.microbatches} microbatches, {made.chunks} "
        f"chunk{'s' if made.chunks > 1 else ''} per rank; {slots.length(found)} slots of which "
        f"{slots.idle_share(found):.1%} idle (F 1, B 2, I 1, W 1); most chunk-microbatches alive "
        f"per rank {held}"
    )
    return f"{facts}\n{slots.draw(grid, found)}"


def lowered(made: Orders) -> str:
    """One line per rank: everything that torch executes, sends and receives included."""
    rows = units.lower(made)
    lines = (" ".join(sheet.cell(unit) for unit in row) for row in rows)
    return "\n".join(f"rank {rank}: {line}" for rank, line in enumerate(lines))
