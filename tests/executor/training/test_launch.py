"""Whole trainings through the command and torchrun: real processes, so few of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import meshwright_train
from executor.training import history
from executor.training.launch import check, train_plan
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


@pytest.mark.parametrize(("key", "flag"), [("output", "-o"), ("tensorboard", "--tensorboard")])
def test_a_folder_that_is_a_file_is_refused(
    plan: Plan, tmp_path: Path, key: str, flag: str
) -> None:
    (tmp_path / "file").write_text("kept")
    places = {"output": tmp_path / "out"} | {key: tmp_path / "file"}
    with pytest.raises(InputError, match=f"{flag}: .* is a file; give a folder"):
        check(plan, TrainOptions(**places))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(
    plans: list[Path], folder: Path, *words: str, meeting: Sequence[str] = ("--standalone",)
) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *meeting, *words]
    command += ["--nproc-per-node", "2", "-m", "executor.training", *map(str, plans)]
    return [*command, "--held-out", "1", "--output", str(folder)]


@pytest.mark.slow
def test_torchrun_starts_the_same_ranks_with_the_plan_of_their_number(
    plan: Plan, tmp_path: Path
) -> None:
    alone = make_plan(plan.model, dtype="fp32", micro_batch=8)
    paths = [
        documents.save(each, tmp_path / f"{each.layout.devices}.json") for each in (alone, plan)
    ]
    done = subprocess.run(
        [*torchrun(paths, tmp_path / "out"), "--steps", "2"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stderr
    found = documents.load(Trained, tmp_path / "out" / "trained.json")
    assert (len(found.loss), found.layout) == (2, plan.layout)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["c10d", "static"])
def test_torchrun_restarts_from_the_last_checkpoint(plan: Plan, tmp_path: Path, kept: bool) -> None:
    """With both of torchrun's rendezvous, whose stores keep what a dead attempt wrote."""
    path, folder = documents.save(plan, tmp_path / "plan.json"), tmp_path / "out"
    chosen = TrainOptions(steps=100, held_out=1, output=tmp_path / "undisturbed")
    undisturbed = train_plan(plan, chosen)
    words = ["--steps", "100", "--checkpoint-every", "10", "--resume", "--timeout", "20s"]
    meeting = [f"--master-port={free_port()}"] if kept else ["--standalone"]
    job = subprocess.Popen(
        [*torchrun([path], folder, "--max-restarts", "1", meeting=meeting), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(history.read(folder / history.NAME)) < 30:
        assert job.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert "going on with step" in said
    found = documents.load(Trained, folder / "trained.json")
    assert 20 <= found.first_step < 100
    assert found.loss == pytest.approx(undisturbed.loss, rel=1e-6)
    assert found.value == pytest.approx(undisturbed.value, rel=1e-6)
