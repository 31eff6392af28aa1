"""Sheet: a schedule as CSV, one row per rank, as torch.distributed.pipelining writes and reads it.

Two forms, torch's "compute_only" and "compute_comms": the compute actions alone, or the lowered
list with UNSHARD, SEND_F, RECV_F, REDUCE_GRAD ... (planner.schedule.units). Cells are actions,
`2F0`, or pairs, `(2F0;5B1)OVERLAP_F_B`; empty cells (torch's idle slots) are skipped.
torch's _PipelineScheduleRuntime._load_csv runs either. Its last stage must run forwards in
increasing order of microbatch, because it looks losses up by number.
"""

import csv
import io

from planner.schedule import units
from planner.schedule.action import Action, Kind
from planner.schedule.check import ScheduleError, check
from planner.schedule.orders import Orders
from planner.schedule.units import Unit, Units
from planner.spec.documents import InputError

OVERLAP = "OVERLAP_F_B"


def compute_only(made: Orders) -> str:
    """The CSV text of the compute actions."""
    return text(units.of_orders(made))


def with_communication(made: Orders) -> str:
    """The CSV text of everything that torch executes."""
    return text(units.lower(made))


def text(rows: Units) -> str:
    """Units as CSV text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([cell(unit) for unit in row] for row in rows)
    return out.getvalue()


def cell(unit: Unit) -> str:
    """One cell: an action, or a pair in brackets."""
    if len(unit) == 1:
        return str(unit[0])
    return f"({';'.join(map(str, unit))}){OVERLAP}"


def read(written: str, name: str = "schedule") -> Units:
    """Units from CSV text; name: what messages call it. Raises InputError at the first bad cell."""
    rows = list(csv.reader(io.StringIO(written)))
    if not any(any(row) for row in rows):
        raise InputError(f"{name}: holds no action; write one row per rank, cells like 0F0")
    return tuple(
        tuple(
            _unit(word.strip(), f"{name}: row {i}, cell {j}") for j, word in enumerate(row) if word
        )
        for i, row in enumerate(rows)
    )


def _unit(word: str, where: str) -> Unit:
    try:
        if not word.startswith("("):
            return (Action.parse(word),)
        inner, _, kind = word[1:].partition(")")
        pair = tuple(Action.parse(part) for part in inner.split(";"))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    kinds = tuple(action.kind for action in pair)
    if kind != OVERLAP or kinds != (Kind.FORWARD, Kind.BACKWARD):
        raise InputError(f"{where}: {word!r} is no pair; write (0F1;3B0){OVERLAP}")
    return pair


def check_rows(rows: Units) -> None:
    """Raise ScheduleError unless torch can run the rows: all that is named whole and in order."""
    grid = units.flat(rows)
    actions = [action for order in grid for action in order]
    stages = 1 + max(action.stage for action in actions)
    check(grid, stages, 1 + max(action.microbatch or 0 for action in actions))
    last = [a.microbatch or 0 for a in actions if (a.stage, a.kind) == (stages - 1, Kind.FORWARD)]
    if last != sorted(last):
        raise ScheduleError(
            f"stage {stages - 1} runs its forwards in the order {', '.join(map(str, last))}; torch "
            f"looks losses up by number, so they must increase"
        )
