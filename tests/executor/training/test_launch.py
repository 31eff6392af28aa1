"""Whole trainings through the command and torchrun: real processes, so few of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import meshwright_train
from executor.training import history
from executor.training.launch import check
from executor.training.options import TrainOptions
from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from tests.examples import gpt2_like
from tests.executor.plans import make_plan

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(gpt2_like(vocab=256, layers=2), dtype="fp32", pp=2, micro_batch=8)


def test_the_command_trains_and_prints_the_metric(plan: Plan, tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    meshwright_train.register(app)
    path = documents.save(plan, tmp_path / "plan.json")
    words = ["train", "--plan", str(path), "-o", str(tmp_path / "out"), "--steps", "8"]
    words += ["--tensorboard", str(tmp_path / "scalars"), "--clip-norm", "1", "--format", "json"]
    done = CliRunner().invoke(app, [*words, "--learning-rate", "1e-2", "--held-out", "2"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    found = documents.load(Trained, tmp_path / "out" / "trained.json")
    assert printed["value"] == found.value
    assert found.value < 256
    records = history.read(tmp_path / "out" / history.NAME)
    assert tuple(record.loss for record in records) == found.loss
    assert found.loss[-1] < found.loss[0] - 0.3
    assert [record.step for record in records] == list(range(8))
    assert "language, 2 ranks" in done.stderr
    assert "8/8" in done.stderr
    (events,) = (tmp_path / "scalars").iterdir()
    assert events.read_bytes().count(b"learning_rate") == 8


def test_a_folder_with_a_training_is_not_overwritten(plan: Plan, tmp_path: Path) -> None:
    history.write(tmp_path / history.NAME, [])
    with pytest.raises(InputError, match=r"already holds a training"):
        check(plan, TrainOptions(output=tmp_path))


@pytest.mark.slow
def test_torchrun_starts_the_same_ranks(plan: Plan, tmp_path: Path) -> None:
    path = documents.save(plan, tmp_path / "plan.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "executor.training", str(path)]
    done = subprocess.run(
        [*command, "--steps", "2", "--held-out", "1", "--output", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stderr
    assert len(documents.load(Trained, tmp_path / "out" / "trained.json").loss) == 2
