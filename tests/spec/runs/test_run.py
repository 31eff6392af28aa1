"""Run: cells as the source wrote them, unknown where it does not say; errors name the place."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from planner.spec.runs.run import COLUMNS, UNKNOWN, Run, parse_runs, read_runs

TEXT = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1).filter(
    lambda text: text.lower() not in UNKNOWN
)
COUNT = st.integers(1, 10**6)


def one(header: str, cells: str) -> Run:
    (run,) = parse_runs(f"{header}\n{cells}\n", "runs.csv")
    return run


@given(TEXT, COUNT, st.floats(1e-6, 1e6), st.booleans(), TEXT)
def test_what_was_written_is_read(
    model: str, gpus: int, mfu: float, fsdp: bool, notes: str
) -> None:
    run = one("model,n_gpus,mfu_pct,fsdp,notes", f'{model},{gpus},{mfu!r},{int(fsdp)},"{notes},"')
    found = (run.model, run.n_gpus, run.mfu_pct, run.fsdp, run.notes)
    assert found == (model, gpus, mfu, fsdp, f"{notes},")


@pytest.mark.parametrize("word", ["", " ", "unknown", "Unknown", "N/A", "nan", "null", "?", "-"])
@pytest.mark.parametrize("column", COLUMNS)
def test_an_unknown_cell_stays_unknown(column: str, word: str) -> None:
    other = "model" if column != "model" else "gpu"
    assert getattr(one(f"{other},{column}", f"x,{word}"), column) is None


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("tokens_per_s_per_gpu", '"2,500"', 2500.0),
        ("global_batch", '"1,024"', 1024),
        ("seq_len", "8k", 8192),
        ("zero_stage", "ZeRO-3", 3),
        ("zero_stage", "stage 2", 2),
        ("zero_stage", "none", None),
        ("recompute", "none", "none"),
        ("mfu_pct", "45.5%", 45.5),
        ("step_time_s", "500 ms", 0.5),
        ("step_time_s", "12.5 s", 12.5),
        ("params_b", "70B", 70.0),
        ("peak_mem_gib", "64 GiB", 64.0),
        ("peak_mem_gib", "10.73741824 GB", 10.0),
        ("tflops_per_gpu", "400 TFLOP/s", 400.0),
        ("year", "2024-12", 2024),
    ],
)
def test_numbers_are_read_as_people_write_them(column: str, cell: str, value: object) -> None:
    assert getattr(one(f"model,{column}", f"x,{cell}"), column) == value


def test_a_header_may_have_capitals() -> None:
    assert one("Model,N_GPUs", "gpt,8").n_gpus == 8


def test_missing_columns_are_unknown_and_other_columns_are_ignored() -> None:
    run = one("model,colour", "gpt,blue")
    assert run.model == "gpt"
    values = dataclasses.asdict(run)
    assert {name for name in COLUMNS if values[name] is not None} == {"model"}


def test_short_rows_blank_rows_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("\ufeffmodel,n_gpus,dp\n\na,8\n ,,\nb,16.0,4\n", encoding="utf-8")
    runs = read_runs(path)
    assert [(run.line, run.model, run.n_gpus, run.dp) for run in runs] == [
        (3, "a", 8, None),
        (5, "b", 16, 4),
    ]


def test_a_line_number_counts_lines_not_rows() -> None:
    runs = parse_runs('model,notes\na,"two\nlines"\nb,x\n', "runs.csv")
    assert [run.line for run in runs] == [2, 4]


@pytest.mark.parametrize(
    ("column", "cell", "remedy"),
    [
        ("n_gpus", "eight", "whole number"),
        ("n_gpus", "8.5", "whole number"),
        ("n_gpus", "0", "whole number"),
        ("tp", "-2", "whole number"),
        ("mfu_pct", "fast", "number"),
        ("mfu_pct", "inf", "number"),
        ("mfu_pct", "4 GB", "number"),
        ("step_time_s", "1.2.3 s", "number"),
        ("peak_mem_gib", "-1", "number"),
        ("fsdp", "maybe", "yes nor no"),
    ],
)
def test_a_bad_cell_names_file_line_column_value_and_remedy(
    column: str, cell: str, remedy: str
) -> None:
    with pytest.raises(InputError) as error:
        parse_runs(f"model,{column}\na,\nb,{cell}\n", "mine.csv")
    for part in ("mine.csv", "line 3", column, repr(cell), remedy, "empty"):
        assert part in str(error.value)


def test_zero_means_unused_where_sources_write_it() -> None:
    run = one("zero_stage,cp,ep,vpp,n_experts", "0,0,0,0,0")
    assert (run.zero_stage, run.cp, run.ep, run.vpp, run.n_experts) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no column"),
        ("a,b\n1,2\n", "no column"),
        ("modle,n_gpu\n", "did you mean model, n_gpus"),
        ("model,n_gpus,n_gpus\n", "'n_gpus' is there twice"),
        ("model\na,b\n", "2 cells, the header has 1"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, part: str) -> None:
    with pytest.raises(InputError, match=r"mine\.csv") as error:
        parse_runs(text, "mine.csv")
    assert part in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "none.csv")


def test_the_step_is_the_printed_one_else_the_derived_one_else_of_the_throughput() -> None:
    header = "step_time_s,step_time_best_s,tokens_per_s_per_gpu,seq_len"
    assert one(header, "1.5,2,100,400").step_seconds(8, 16) == 1.5
    assert one(header, ",2,100,400").step_seconds(8, 16) == 2
    assert one(header, ",,100,400").step_seconds(8, 16) == 8
    assert one(header, ",,100,").step_seconds(8, 16) is None
    assert [one(header, text).timed for text in (",2,,", ",,9,", ",,,400")] == [True, True, False]
