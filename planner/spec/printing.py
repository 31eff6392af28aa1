"""Printing: rows to stdout as a table for people, JSON or CSV for programs."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from planner.spec.documents import InputError

FORMATS = ("table", "json", "csv")


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
    """Print rows as a table on stdout; numbers stand to the right, brackets are no markup."""
    table = Table(title=Text(title) if title else None, title_justify="left")
    for key, value in (rows[0] if rows else {}).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(key, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console().print(table)


def console() -> Console:
    """The console on stdout; wide where the output is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
