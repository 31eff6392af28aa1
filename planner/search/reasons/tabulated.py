"""Reasons: why the best plan is best, and why its neighbours lost.

A neighbour differs from the best in one choice (tp, pp, micro_batch, zero, recompute, schedule,
stages); of each choice the best rejected plan is named, with what it loses: time in percent, or
memory in bytes. Neighbours at risk count as not fitting, unless the best itself is at risk.
"""

from dataclasses import dataclass, replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.estimate import estimate
from planner.search.tabulated.table import Table
from planner.simulator.replay import replay
from planner.spec.layout import title
from planner.spec.plan import AT_RISK, Plan, Prediction
from planner.spec.units import format_bytes, format_seconds

WORTH_SAYING = 0.01
"""Chances to run out of memory that are smaller go without a word."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The best plan that differs in one choice. fits is False when none fits without risk."""

    choice: str
    text: str
    row: int
    step_seconds: float
    peak_bytes: float
    fits: bool


def why(blocks: Blocks, tables: tuple[Table, ...], best: Plan) -> tuple[str, ...]:
    """The reasons for a plan against the other rows of the searched tables, as sentences."""
    assert best.predicted is not None
    lines = list(opening(best))
    lines += [_lost(n, best.predicted) for n in neighbours(blocks, tables, best)]
    return tuple(lines)


def opening(best: Plan) -> tuple[str, ...]:
    """Where the time and the memory of a plan go, and how sure that is."""
    assert best.predicted is not None
    return (_time(best.predicted), _memory(best.predicted), *_caveats(best))


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


def _caveats(plan: Plan) -> list[str]:
    """How sure the prediction is."""
    found, promised = [], plan.predicted
    assert promised is not None
    if promised.low_seconds is not None and promised.high_seconds is not None:
        low, high = format_seconds(promised.low_seconds), format_seconds(promised.high_seconds)
        found.append(f"Eight of ten such steps take {low} to {high} ({_ground(plan)}).")
    if promised.at_risk:
        found.append(
            f"It may run out of memory: its peak is above {AT_RISK:.0%} of the device's, where "
            f"runs slow down or fail."
        )
    if (
        promised.safe_peak_bytes is not None
        and (promised.run_out_probability or 0.0) > WORTH_SAYING
    ):
        found.append(
            f"The chance that it runs out of memory is {promised.run_out_probability:.0%}; 99 of "
            f"100 such runs need less than {format_bytes(promised.safe_peak_bytes)}."
        )
    return found


def _ground(plan: Plan) -> str:
    """What a prediction rests on, in words."""
    calibration = plan.calibration
    if calibration is None:
        return "the profile" if plan.profile else "data sheets, no calibration"
    if calibration.borrowed:
        return (
            f"data sheets and the nearest calibration, {calibration.borrowed_from}: no run of "
            f"{plan.runtime.name} on {plan.cluster.accelerator.name} is known"
        )
    return f"calibration {calibration.name}, {calibration.runs} runs"


def _lost(neighbour: Neighbour, best: Prediction) -> str:
    if not neighbour.fits:
        over = neighbour.peak_bytes > best.capacity_bytes
        return (
            f"{neighbour.text} {'does not fit' if over else 'is at risk'}: it needs "
            f"{format_bytes(neighbour.peak_bytes)} of {format_bytes(best.capacity_bytes)}."
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
    assert best.predicted is not None
    share = 1.0 if best.predicted.at_risk else AT_RISK
    fits = table.peak_bytes[rows] <= share * best.cluster.memory_bytes
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
