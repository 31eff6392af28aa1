import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from planner.spec import documents
from planner.spec.documents import InputError
from reports import commands
from tests.reports.conftest import PIPELINE, make_measured, make_plan, make_timeline

APP = typer.Typer()
commands.register(APP)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    plan = make_plan(PIPELINE)
    paths = (
        documents.save(plan, tmp_path / "plan-1.json"),
        documents.save(make_timeline(PIPELINE, 8), tmp_path / "timeline-1.json"),
        documents.save(make_measured(plan, pace=1.25), tmp_path / "measured-1.json"),
    )
    return str(paths[0]), str(paths[1]), str(paths[2])


def run(*words: str) -> str:
    done = CliRunner().invoke(APP, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_compare_prints_json(files: tuple[str, str, str]) -> None:
    value = json.loads(run("compare", files[1], files[2], "--format", "json"))
    assert value["schema"] == "comparison/1"
    assert value["step_error"] == pytest.approx(-0.2)


def test_compare_prints_csv(files: tuple[str, str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(run("compare", files[1], files[2], "--format", "csv"))))
    assert rows[-1]["kind"] == "step"
    assert float(rows[0]["error"]) == pytest.approx(-0.2)


def test_compare_prints_a_table(files: tuple[str, str, str]) -> None:
    text = run("compare", files[1], files[2])
    assert "−20.0%" in text
    assert "120.0 MiB" in text


def test_compare_refuses_a_plan_and_an_unknown_format(files: tuple[str, str, str]) -> None:
    with pytest.raises(InputError, match="holds no timeline"):
        run("compare", files[0], files[2])
    with pytest.raises(InputError, match="--format: 'xml'"):
        run("compare", files[1], files[2], "--format", "xml")


def test_report_of_a_folder_and_of_its_files_is_the_same(
    files: tuple[str, str, str], tmp_path: Path
) -> None:
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    run("report", str(tmp_path), "-o", str(one))
    plan, predicted, measured = files
    run("report", plan, "--predicted", predicted, "--measured", measured, "-o", str(two))
    assert one.read_bytes() == two.read_bytes()
    assert b"<h1>small-gpt2 on local</h1>" in one.read_bytes()


def test_report_refuses_documents_beside_a_folder(
    files: tuple[str, str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is a folder"):
        run("report", str(tmp_path), "--measured", files[2], "-o", str(tmp_path / "x.html"))


def test_the_commands_load_only_when_used() -> None:
    code = (
        "import sys, reports.commands\n"
        "print(sorted({'pandas', 'matplotlib', 'pydantic', 'jinja2'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
