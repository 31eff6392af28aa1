"""Tables: the plans of one question as rows, for people and for programs.

Rows hold SI numbers with the unit in the key; the rich table prints ms and GiB.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from planner.spec.units import format_bytes, format_seconds
from reports.results import PlanResult
from reports.verdict import percent

Row = dict[str, Any]


def plans_rows(results: Sequence[PlanResult]) -> list[Row]:
    """One row per plan; None where nothing was measured."""
    return [
        {
            "plan": result.name,
            "predicted_step_seconds": result.predicted_seconds,
            "measured_step_seconds": result.measured_seconds,
            "error": result.error,
            "predicted_peak_bytes": result.predicted_peak_bytes,
            "measured_peak_bytes": result.measured_peak_bytes,
            "memory_kept": result.memory_kept,
            "loss_parity": result.loss_parity,
        }
        for result in results
    ]


def plans_json(results: Sequence[PlanResult]) -> Row:
    """The rows as one JSON value, schema results/1."""
    return {"schema": "results/1", "plans": plans_rows(results)}


def plans_table(results: Sequence[PlanResult], title: str = "") -> Table:
    """The rows for people, numbers with units to the right."""
    table = Table(title=title or None, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("plan", overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for index, cells in enumerate(plans_cells(results), start=1):
        table.add_row(str(index), *cells)
    return table


HEADINGS = ("predicted", "measured", "error", "peak predicted", "peak measured", "loss parity")


def plans_cells(results: Sequence[PlanResult]) -> list[tuple[str, ...]]:
    """Per plan its name and one text per heading; a dash where nothing was measured."""
    return [
        (
            result.name,
            format_seconds(result.predicted_seconds),
            cell(result.measured_seconds, format_seconds),
            cell(result.error, percent),
            cell(result.predicted_peak_bytes, format_bytes),
            cell(result.measured_peak_bytes, format_bytes),
            cell(result.loss_parity, "{:.1e}".format),
        )
        for result in results
    ]


def cell(value: float | None, text: Callable[[float], str]) -> str:
    """A number as text, or a dash."""
    return "–" if value is None else text(value)


def readable(row: Mapping[str, Any]) -> Row:
    """A row with SI numbers as people read it: units out of the keys and into the cells."""
    return dict(_readable(key, value) for key, value in row.items())


def _readable(key: str, value: Any) -> tuple[str, str]:
    for suffix, text in (("_seconds", format_seconds), ("_bytes", format_bytes)):
        if key.endswith(suffix):
            return key.removesuffix(suffix).replace("_", " "), cell(value, text)
    if key == "error":
        return key, cell(value, percent)
    if isinstance(value, bool):
        return key, "yes" if value else "NO"
    return key.replace("_", " "), str(value)
