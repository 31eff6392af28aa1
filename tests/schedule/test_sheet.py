"""The CSV reads back, torch's loader takes it, and what is no schedule is refused by cell."""

from pathlib import Path

import pytest
from hypothesis import given
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from planner.schedule import orders, sheet, units
from planner.schedule.check import ScheduleError
from planner.schedule.orders import default_chunks
from planner.spec.documents import InputError
from planner.spec.runtime import SCHEDULES
from tests.schedule import torch_schedules
from tests.schedule.test_orders import cases


@given(cases())
def test_what_is_written_reads_back(case: tuple[str, int, int, int]) -> None:
    made = orders.orders(*case)
    for rows in (units.of_orders(made), units.lower(made)):
        assert sheet.read(sheet.text(rows)) == rows
        sheet.check_rows(rows)
    assert units.flat(sheet.read(sheet.compute_only(made))) == orders.grid(made)


@pytest.mark.parametrize("name", SCHEDULES)
def test_torchs_loader_takes_both_forms(name: str, tmp_path: Path) -> None:
    ranks, m, chunks = 4, 8, default_chunks(name)
    made = orders.orders(name, ranks, m, chunks)
    lowered = [[sheet.cell(unit) for unit in row] for row in units.lower(made)]
    forms = {"compute_only": sheet.compute_only, "compute_comms": sheet.with_communication}
    for form, write in forms.items():
        path = tmp_path / f"{form}.csv"
        path.write_text(write(made))
        stages = [torch_schedules.stage(ranks, chunks) for _ in range(chunks)]
        runtime = _PipelineScheduleRuntime(stages, m)
        runtime._load_csv(str(path), format=form)
        found = runtime.pipeline_order_with_comms
        assert [[str(action) for action in found[rank]] for rank in range(ranks)] == lowered
        assert list(runtime.stage_index_to_group_rank) != []
        placed = [runtime.stage_index_to_group_rank[s] for s in range(made.stages)]
        assert placed == made.rank_of_stage.tolist()


def test_idle_cells_are_skipped() -> None:
    assert sheet.read(",,0F0,,0B0\n") == sheet.read("0F0,0B0\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no action; write one row per rank"),
        ("0F0,0X0\n", "my.csv: row 0, cell 1: '0X0' is not an action"),
        ("0F0\n1F0,(1F1;0F3)OVERLAP_F_B\n", "my.csv: row 1, cell 1: '(1F1;0F3)OVERLAP_F_B' is no"),
        ("(1F1;0B3)BOTH\n", "is no pair; write (0F1;3B0)OVERLAP_F_B"),
    ],
)
def test_a_bad_cell_is_named(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        sheet.read(text, "my.csv")
    assert says in str(caught.value)


def test_rows_that_cannot_run_are_refused() -> None:
    with pytest.raises(ScheduleError, match="0B1 appears 0 times"):
        sheet.check_rows(sheet.read("0F0,0B0,0F1\n"))
    with pytest.raises(ScheduleError, match="stage 0 runs its forwards in the order 1, 0"):
        sheet.check_rows(sheet.read("0F1,0F0,0B0,0B1\n"))
