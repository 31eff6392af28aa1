"""meshwright validate: tables for people, JSON and CSV for programs, errors with a way out."""

import csv
import io
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from planner.spec import catalog
from planner.spec.documents import InputError
from reports import commands

APP = typer.Typer()
commands.register(APP)

RUNS = catalog.FOLDER / "runs"
SC21 = str(RUNS / "megatron_sc21_table1.csv")
NEMO = str(RUNS / "nemo_2407.csv")


def call(*words: str) -> str:
    done = CliRunner().invoke(APP, ["validate", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_json_of_several_files() -> None:
    value = json.loads(call(SC21, NEMO, "--format", "json"))
    assert value["schema"] == "validation/1"
    assert (value["rows"], value["used"]) == (46, 40)
    assert value["skipped"] == {"LoRA: most weights are frozen": 6}
    assert list(value["per_source"]) == [
        "megatron-sc21-table1",
        "nemo-24.07-v2.0.0",
        "nemo-24.07-v2.1.0",
    ]
    assert value["time"]["median_ape"] > 0
    assert {Path(row["file"]).name for row in value["predictions"]} == {
        "megatron_sc21_table1.csv",
        "nemo_2407.csv",
    }


def test_csv_has_one_row_per_prediction() -> None:
    rows = list(csv.DictReader(io.StringIO(call(SC21, "--format", "csv"))))
    assert [row["line"] for row in rows] == [str(line) for line in range(2, 12)]
    assert all(float(row["predicted_step_seconds"]) > 0 for row in rows)


def test_tables_name_sources_baselines_reasons_and_assumptions() -> None:
    text = call(SC21, NEMO)
    for part in (
        "40 of 46 rows used",
        "megatron-sc21-table1",
        "constant",
        "bubble",
        "skipped because",
        "LoRA",
        "recompute unknown, none assumed",
    ):
        assert part in text


def test_where_and_runtime_are_heard() -> None:
    value = json.loads(
        call(SC21, "--where", "n_gpus<=64", "--runtime", "native", "--format", "json")
    )
    assert value["used"] == 2
    assert value["skipped"] == {"not selected by --where": 8}
    assert not any("runtime" in note for row in value["predictions"] for note in row["notes"])


def test_nothing_selected_is_an_answer() -> None:
    value = json.loads(call(SC21, "--where", "n_gpus<=0", "--format", "json"))
    assert (value["used"], value["time"]["median_ape"], value["predictions"]) == (0, None, [])
    assert "0 of 10 rows used" in call(SC21, "--where", "n_gpus<=0")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_figure_is_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"scatter{suffix}"
    call(SC21, "--figure", str(path))
    start = path.read_bytes()[:200]
    assert (b"<svg" in path.read_bytes()) if suffix == ".svg" else start.startswith(b"\x89PNG")


def test_a_figure_is_the_same_twice(tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "x.svg", tmp_path / "two" / "x.svg"
    for path in (one, two):
        call(SC21, "--figure", str(path))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["none.csv"], "no such file"),
        ([SC21, "--runtime", "nativ"], "did you mean 'native'"),
        ([SC21, "--where", "n_gpu<=8"], "did you mean 'n_gpus'"),
        ([SC21, "--where", "__import__('os')"], "--where"),
        ([SC21, "--format", "xml"], "--format"),
        ([SC21, "--figure", "x.pdf"], ".svg or .png"),
    ],
)
def test_wrong_input_says_what_to_write(words: list[str], part: str) -> None:
    with pytest.raises(InputError) as error:
        call(*words)
    assert part in str(error.value)
