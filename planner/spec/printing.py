"""Printing: rows to stdout as a table for people, JSON or CSV for programs."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence, Set
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from planner.spec.documents import InputError

FORMATS = ("table", "json", "csv")
LONG = 40
"""Assumed: characters from which a cell is read as a line of its own."""
KEY_AND_VALUE = 2
"""Assumed: so many columns can be folded and still be read."""
UNBOUNDED = 10_000
"""Columns of a terminal on which every table fits."""


def check_format(chosen: str, allowed: Sequence[str] = FORMATS) -> str:
    """Return the format. Raises InputError for one that does not exist here."""
    if chosen not in allowed:
        raise InputError(f"--format: {chosen!r} is unknown; choose {', '.join(allowed)}")
    return chosen


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as CSV on stdout; the keys of the first row are the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    sys.stdout.write(text.getvalue())


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Print rows as a table on stdout; numbers stand to the right, brackets are no markup.

    Where a table is wider than the terminal, its columns of long words (a plan, a reason) leave
    it, the longest first, and stand beneath, each row's under its number.
    """
    out, cells = console(), [{key: _cell(row[key]) for key in row} for row in rows]
    numbers = {key for key, value in (rows[0] if rows else {}).items() if _is_number(value)}
    beneath: list[str] = []
    while (table := _table(cells, numbers, beneath, title)) and _width(out, table) > out.width:
        longest = _longest(cells, beneath)
        if longest is None:
            break
        beneath.append(longest)
    if len(table.columns) > KEY_AND_VALUE and _width(out, table) > out.width:
        table.padding = (0, 0)  # before a number is folded
    out.print(table)
    if beneath:
        out.print(_lines(cells, beneath))


def _longest(cells: Sequence[Mapping[str, str]], beneath: Sequence[str]) -> str | None:
    """The column that is to leave the table next, if any."""
    if not cells or len(cells[0]) - len(beneath) <= KEY_AND_VALUE:
        return None
    lengths = {key: max(len(row[key]) for row in cells) for key in cells[0] if key not in beneath}
    longest = max(lengths, key=lambda key: lengths[key])
    return longest if lengths[longest] >= LONG else None


def _lines(cells: Sequence[Mapping[str, str]], beneath: Sequence[str]) -> Table:
    lines = Table.grid(padding=(0, 1))
    lines.add_column(justify="right")
    lines.add_column(overflow="fold")
    for number, row in enumerate(cells, 1):
        told = [key for key in row if key in beneath and row[key]]
        for key in told:
            text = row[key] if len(beneath) == 1 else f"{key}: {row[key]}"
            lines.add_row(str(number) if key == told[0] else "", Text(text))
    return lines


def _table(
    cells: Sequence[Mapping[str, str]], numbers: Set[str], beneath: Sequence[str], title: str
) -> Table:
    table = Table(title=Text(title) if title else None, title_justify="left")
    shown = [key for key in (cells[0] if cells else {}) if key not in beneath]
    if beneath:
        table.add_column("", justify="right")
    for key in shown:
        table.add_column(key, justify="right" if key in numbers else "left", overflow="fold")
    for number, row in enumerate(cells, 1):
        table.add_row(*([str(number)] if beneath else []), *(Text(row[key]) for key in shown))
    return table


def _width(out: Console, table: Table) -> int:
    """Of the table's columns; its title may be folded."""
    options = out.options.update(width=UNBOUNDED)
    return Measurement.get(out, options, table).maximum


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def console() -> Console:
    """The console on stdout; wide where the output is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
