"""Reasons: why the best plan is best, and why its neighbours lost.

A neighbour differs from the best in one choice (tp, pp, micro_batch, zero, recompute, schedule,
stages); of each choice the best rejected plan is named, with what it loses: time in percent, or
memory in bytes.
"""

from dataclasses import dataclass, replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.estimate import estimate
from planner.search.ranking import Table
from planner.simulator.replay import replay
from planner.spec.layout import title
from planner.spec.plan import Plan, Prediction
from planner.spec.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The best plan that differs in one choice. fits is False when only misfits remain."""

    choice: str
    text: str
    row: int
    step_seconds: float
    peak_bytes: float
    fits: bool


def why(blocks: Blocks, tables: tuple[Table, ...], best: Plan) -> tuple[str, ...]:
    """The reasons for a plan against the other rows of the searched tables, as sentences."""
    assert best.predicted is not None
    lines = [_time(best.predicted), _memory(best.predicted)]
    lines += [_lost(n, best.predicted) for n in neighbours(blocks, tables, best)]
    return tuple(lines)


def _time(predicted: Prediction) -> str:
    parts = sorted(predicted.breakdown.items(), key=lambda item: -item[1])
    shown = [
        f"{name} {seconds / predicted.step_seconds:.0%}"
        for name, seconds in parts
        if seconds > 0.005 * predicted.step_seconds
    ]
    return f"The step takes {format_seconds(predicted.step_seconds)}: {', '.join(shown)}."


def _memory(predicted: Prediction) -> str:
    parts = sorted(predicted.memory.items(), key=lambda item: -item[1])[:3]
    split = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts)
    return (
        f"The fullest stage holds {format_bytes(predicted.peak_bytes)} of "
        f"{format_bytes(predicted.capacity_bytes)}: {split}."
    )


def _lost(neighbour: Neighbour, best: Prediction) -> str:
    if not neighbour.fits:
        return (
            f"{neighbour.text} does not fit: it needs {format_bytes(neighbour.peak_bytes)} of "
            f"{format_bytes(best.capacity_bytes)}."
        )
    slower = neighbour.step_seconds / best.step_seconds - 1.0
    if abs(slower) < 5e-4:
        return f"{neighbour.text} is as fast."
    return f"{neighbour.text} takes {format_seconds(neighbour.step_seconds)}, {slower:+.1%}."


def neighbours(blocks: Blocks, tables: tuple[Table, ...], best: Plan) -> list[Neighbour]:
    """The best other plan for every choice that has an alternative, nearest first."""
    found = []
    for choice in ("tp", "pp", "dp", "micro_batch", "zero", "recompute", "schedule", "stages"):
        rivals = [
            (rival, table) for table in tables if (rival := _rival(table, best, choice)) is not None
        ]
        if rivals:
            nearest = min(rivals, key=lambda pair: (not pair[0].fits, pair[0].step_seconds))
            found.append(_replayed(blocks, *nearest))
    unique = {neighbour.text: neighbour for neighbour in found}
    return sorted(unique.values(), key=lambda n: (not n.fits, n.step_seconds))


def _replayed(blocks: Blocks, neighbour: Neighbour, table: Table) -> Neighbour:
    if not neighbour.fits:
        return neighbour
    one = table.candidates.take(np.array([neighbour.row]))
    step = replay(blocks, one, estimate(blocks, one), 0).step_seconds
    return replace(neighbour, step_seconds=step)


def _rival(table: Table, best: Plan, choice: str) -> Neighbour | None:
    """The best row of a table that differs from the best plan in `choice`, or None."""
    rows = np.flatnonzero(_differs(table, best, choice))
    if not len(rows):
        return None
    fits = table.peak_bytes[rows] <= best.cluster.memory_bytes
    pool = rows[fits] if fits.any() else rows
    by = table.step_seconds if fits.any() else table.peak_bytes
    row = int(pool[np.argmin(by[pool])])
    text = title(table.candidates.layout(row), table.candidates.layer_counts(row))
    seconds, peak = float(table.step_seconds[row]), float(table.peak_bytes[row])
    return Neighbour(choice, text, row, seconds, peak, bool(fits.any()))


def _differs(table: Table, best: Plan, choice: str) -> np.ndarray:
    """Rows that differ in the choice; memory and schedule choices keep everything else."""
    rows, layout = table.candidates, best.layout
    mesh = (rows.tp == layout.tp) & (rows.dp == layout.dp) & (rows.pp == layout.pp)
    same = {
        "micro_batch": rows.micro_batch == layout.micro_batch,
        "zero": rows.zero == layout.zero,
        "recompute": np.full(len(rows), rows.recompute == layout.recompute),
        "schedule": np.full(len(rows), rows.schedule == layout.schedule),
    }
    if choice in ("tp", "pp", "dp"):
        value = rows.pp if choice == "pp" else getattr(rows, choice)
        return np.broadcast_to(value != getattr(layout, choice), (len(rows),))
    even = rows.counts == np.array(best.layer_counts) if rows.pp == layout.pp else False
    same["stages"] = np.all(even, axis=-1) if rows.pp == layout.pp else np.zeros(len(rows), bool)
    others = [value for name, value in same.items() if name != choice]
    result: np.ndarray = mesh & ~same[choice] & np.all(others, axis=0)
    return result
