"""nccl-tests, text: what the tests print.

    size(B) count(elements) type redop root | time(us) algbw busbw #wrong | time algbw busbw #wrong

Newer versions add i_min i_max i_p99 i_cv% after #wrong (-I 1) and a timestamp at the end (-S 1);
older ones have `error` for #wrong and alltoall without redop and root. Columns are therefore
found by their names in the header.

One text may hold several runs after one another. The lines `#  Rank ...` say how many ranks,
groups and hosts there were; the test's name stands in the text or in the file's name.
"""

import re
from collections.abc import Mapping, Sequence

from planner.spec.documents import InputError
from profiler.imports.fields import LARGEST
from profiler.imports.nccl_tests import (
    NAMED,
    QUARTILES,
    Device,
    Row,
    Run,
    host_times,
    outcome,
    wrong_values,
)
from profiler.imports.outcome import Outcome, Wanted
from profiler.imports.source import Source

BEGINS = re.compile(r"#\s*nThread\s")
"""The line that every run begins with, in every version."""
PREFIX = re.compile(r"^(?:\[\d+,\d+\](?:<std\w+>)?:\s?|\s*\d+:\s+(?=[#\d\s]))")
"""What mpirun --tag-output and srun -l put before each line."""
RANK = re.compile(
    r"#\s*Rank\s+(\d+)\s+(?:Group\s+(\d+)\s+)?Pid\s+\d+ on\s+(\S+) device\s+\d+ \[[^\]]*\]\s*(.*)"
)
ITERATIONS = re.compile(r"\biters:\s*(\d+)(?:\s+agg iters:\s*(\d+))?")
FAILED = re.compile(r"#\s*Out of bounds values\s*:\s*(\S+)\s+FAILED")


def read(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import texts of one or more runs. Raises InputError."""
    return outcome(sources, [(s, run) for s in sources for run in _runs(s)], wanted)


def _runs(source: Source) -> list[Run]:
    """The runs of a text. Raises InputError for rows that do not fit their header."""
    run, columns, runs = Run(), list[str](), list[Run]()
    named: str | None = None
    for number, raw in enumerate(source.text.splitlines(), 1):
        line = PREFIX.sub("", raw)
        if (match := NAMED.search(line)) and "concluded" not in line:
            named = match[1]
        if BEGINS.match(line):
            run = Run()
        if match := ITERATIONS.search(line):
            run.repeats = int(match[1]) * int(match[2] or 1)
        if match := RANK.search(line):
            run.devices.append(
                Device(int(match[1]), int(match[2] or 0), match[3], match[4].strip())
            )
        if match := FAILED.search(line):
            raise wrong_values(source, f"line {number}", match[1])
        if header := _header(line):
            columns = header
            if "cputime" in columns:
                raise host_times(source, f"line {number}")
        elif _is_row(line):
            rows = _rows(source, number, line, columns, run.repeats)
            if not run.rows:
                runs.append(run)
                run.test, named = named, None
            run.rows += rows
    if not runs:
        raise InputError(
            f"{source.path}: no row of results (size, count, type, ..., time, algbw, busbw, "
            f"#wrong); was the run cut off before its first result?"
        )
    return runs


def _header(line: str) -> list[str]:
    """The names of the columns, if this line holds them."""
    words = line.lstrip("#").split()
    return (
        words if words[:2] == ["size", "count"] and ("time" in words or "cputime" in words) else []
    )


def _is_row(line: str) -> bool:
    words = line.split()
    return len(words) > 3 and words[0].isdecimal() and words[1].isdecimal()


def _rows(
    source: Source, number: int, line: str, columns: Sequence[str], repeats: int
) -> list[Row]:
    cells = _cells(source, number, line, columns)
    names = [name for name, _ in cells]
    starts = [i for i, name in enumerate(names) if name == "time"]
    rows = []
    for index, start in enumerate(starts):
        stop = starts[index + 1] if index + 1 < len(starts) else len(cells)
        half = dict(cells[start:stop])
        wrong = half.get("#wrong", half.get("error", "N/A"))
        rows.append(
            Row(
                place=f"line {number}",
                size=int(cells[0][1]),
                in_place=index == 1,
                seconds=_number(source, number, "time", half["time"]) * 1e-6,
                wrong=None if wrong == "N/A" else _number(source, number, "#wrong", wrong),
                spread=_cell_spread(source, number, half),
                repeats=repeats,
            )
        )
    return rows


def _cells(source: Source, number: int, line: str, columns: Sequence[str]) -> list[tuple[str, str]]:
    """(column, cell) of a row."""
    words, names = line.split(), list(columns)
    if not names:
        raise InputError(
            f"{source.path}: line {number}: a row without its header (# size count type ...); "
            f"keep the lines that begin with #"
        )
    if "timestamp" in names:
        names.remove("timestamp")
        words = words[:-2]
    if len(words) == len(names) - 1 and "redop" in names:
        names.remove("redop")  # a test without a reduction prints an empty name
    if len(words) != len(names):
        raise InputError(
            f"{source.path}: line {number}: {len(words)} columns, the header has {len(names)} "
            f"({' '.join(names)}); was the file cut off, or are two outputs mixed?"
        )
    return list(zip(names, words, strict=True))


def _number(source: Source, number: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not 0 <= value < LARGEST:
        raise InputError(
            f"{source.path}: line {number}: column {column}: {cell!r} is no number from 0 on"
        )
    return value


def _cell_spread(source: Source, number: int, half: Mapping[str, str]) -> float | None:
    cell = half.get("i_cv%")
    return None if cell is None else QUARTILES * _number(source, number, "i_cv%", cell) / 100
