"""Whole runs through the launcher and torchrun: real processes, so few of them."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import executor.commands
from executor import __main__ as rank_program
from executor import results
from executor.options import RunOptions
from executor.processes import progress
from executor.processes.launch import held_bytes, rank_command, run_plan
from executor.processes.supervisor import RunError
from planner.schedule.lowering import lower
from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.measured import Measured
from planner.spec.plan import Plan
from tests.executor.plans import make_plan
from tests.executor.processes.test_supervisor import alive
from tests.executor.started import started

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan("gpt2", dtype="fp32", pp=2, micro_batch=2)


@dataclasses.dataclass
class Ran:
    stdout: str
    stderr: str
    measured: Measured


@pytest.fixture(scope="module")
def ran(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """`meshwright run plan.json -o measured.json --format json`."""
    folder = tmp_path_factory.mktemp("run")
    app = typer.Typer()
    app.callback()(lambda: None)
    executor.commands.register(app)
    path = documents.save(plan, folder / "plan.json")
    words = ["run", str(path), "-o", str(folder / "measured.json"), "--format", "json"]
    done = CliRunner().invoke(app, [*words, "--steps", "4", "--warmup", "2"])
    assert done.exit_code == 0, done.output
    return Ran(done.stdout, done.stderr, documents.load(Measured, folder / "measured.json"))


def test_stdout_is_the_measured_value_without_its_timeline(ran: Ran) -> None:
    value = json.loads(ran.stdout)
    assert value["schema"] == "measured/1"
    assert set(value["step_seconds"]) == {"median", "min", "max", "steps"}
    assert "timeline" not in value
    expected = json.loads(ran.measured.model_dump_json(exclude={"timeline"}))
    assert value == expected
    assert "measured.json" in ran.stderr


def test_every_option_reaches_the_ranks(tmp_path: Path) -> None:
    options = RunOptions(5, 1, 7.0, "gloo", 3, 1e-2, clip_norm=0.3, module="my_model.py:build")
    usual = dataclasses.asdict(RunOptions())
    assert all(value != usual[key] for key, value in dataclasses.asdict(options).items())
    words = rank_command(tmp_path, options)
    assert rank_program._options(rank_program._parser().parse_args(words[3:])) == options


def test_the_same_loss_as_one_process(ran: Ran, plan: Plan) -> None:
    assert len(ran.measured.loss) == len(ran.measured.gradient_norm) == 6
    assert ran.measured.loss[0] == pytest.approx(math.log(plan.model.vocab), rel=0.05)
    assert ran.measured.world_size == 2
    assert ran.measured.backend == "gloo"
    assert ran.measured.warmup_steps == 2
    times = ran.measured.step_seconds
    assert len(times.steps) == 4
    assert times.min <= times.median <= times.max


def test_table_has_a_row_per_rank(ran: Ran) -> None:
    first, second = results.rows(ran.measured)
    assert (first["rank"], first["pp"], second["rank"], second["pp"]) == (0, 0, 1, 1)
    assert first["peak tensors"].endswith("B")
    assert "pp=2" in results.title(ran.measured)
    assert "on 2 ranks (gloo)" in results.title(ran.measured)


def test_timeline_names_the_lowered_actions(ran: Ran, plan: Plan) -> None:
    timeline = ran.measured.timeline
    assert timeline is not None
    grid = lower("1f1b", 2, plan.microbatches)
    for rank in range(2):
        spans = [span for span in timeline.spans if span.rank == rank]
        assert [span.name for span in spans] == [str(action) for action in grid[rank]]
        assert all(a.end_seconds <= b.start_seconds for a, b in itertools.pairwise(spans))
    assert timeline.step_seconds in ran.measured.step_seconds.steps
    late = max(span.end_seconds for span in timeline.spans)
    assert late <= timeline.step_seconds * 1.5


def test_a_receive_ends_after_its_send_starts(ran: Ran) -> None:
    timeline = ran.measured.timeline
    assert timeline is not None
    at = {(span.rank, span.name): span for span in timeline.spans}
    for k in range(3):
        assert at[1, f"1RECV_F{k}"].end_seconds > at[0, f"0SEND_F{k}"].start_seconds
        assert at[0, f"0RECV_B{k}"].end_seconds > at[1, f"1SEND_B{k}"].start_seconds


def test_peak_memory_holds_weights_gradients_and_states(ran: Ran, plan: Plan) -> None:
    assert sum(ran.measured.peak_bytes.values()) > held_bytes(plan)
    assert sum(ran.measured.peak_bytes.values()) < 3 * held_bytes(plan)
    timeline = ran.measured.timeline
    assert timeline is not None
    for rank, peak in ran.measured.peak_bytes.items():
        curve = [point.held_bytes for point in timeline.memory if point.rank == rank]
        assert max(curve) == peak
        assert min(curve) > 0.5 * held_bytes(plan) / 2
        assert curve[-1] < peak
        assert ran.measured.resident_bytes[rank] > 50e6


@contextlib.contextmanager
def disturbed(act: Callable[[int], None]) -> Iterator[list[int]]:
    """Act on rank 1 once both ranks train, if they ever do; yields where both pids will be."""
    found: list[int] = []
    over = threading.Event()

    def wait() -> None:
        while not (len(ranks := started("executor")) == 2 and both_train(ranks[0])):
            if over.wait(0.02):
                return
        found.extend(ranks)
        act(ranks[1])

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def both_train(pid: int) -> bool:
    """Whether both ranks have begun a step, as their progress file says."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        run = next(each for each in environment if each.startswith("MESHWRIGHT_RUN="))
        marks = progress.read(Path(run.partition("=")[2]) / "progress", 2)
        return all(mark.doing.startswith("step") for mark in marks)
    except (OSError, StopIteration):
        return False


def test_a_killed_rank_ends_the_run_at_once() -> None:
    named = pytest.raises(RunError, match=r"(?s)rank 1 was killed by signal 9.*it was at: step")
    with disturbed(lambda pid: os.kill(pid, signal.SIGKILL)) as found, named:
        run_plan(make_plan("llama", dp=2), steps=100_000)
    assert len(found) == 2
    assert not any(map(alive, found))


def test_a_stopped_rank_ends_the_run_within_the_timeout() -> None:
    stopped: list[float] = []

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        stopped.append(time.perf_counter())

    named = pytest.raises(RunError, match=r"rank 1 stopped making progress.*is stopped")
    with disturbed(stop) as found, named:
        run_plan(make_plan("llama", pp=2), steps=100_000, timeout_seconds=4.0)
    assert time.perf_counter() - stopped[0] < 4.0 + 20.0  # the 100,000 steps take far longer
    assert len(found) == 2
    assert not any(map(alive, found))


def test_bad_input_that_a_rank_finds_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 cannot write its result: its folder is gone."""
    command = ["--output", "/dev/null/nowhere/measured.json"]
    monkeypatch.setattr(
        "executor.processes.launch.rank_command",
        lambda directory, options: [
            *(sys.executable, "-m", "executor", str(directory / "plan.json")),
            *("--steps", "1", "--warmup", "0", *command),
        ],
    )
    with pytest.raises(InputError, match=r"rank 0: .*measured.json: cannot be written"):
        run_plan(make_plan("llama", dp=2, micro_batch=4))


def test_torchrun_starts_the_same_ranks(tmp_path: Path) -> None:
    plan = make_plan("llama", dtype="fp32", tp=2, micro_batch=12)
    path = documents.save(plan, tmp_path / "plan.json")
    output = tmp_path / "measured.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "executor", str(path), "-o", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--steps", "2"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(documents.load(Measured, output).step_seconds.steps) == 2


def test_a_wrong_world_size_is_bad_input(tmp_path: Path) -> None:
    path = documents.save(make_plan("llama", dp=2), tmp_path / "plan.json")
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "executor", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "WORLD_SIZE is 3, the plan (dp=2" in done.stderr
    assert "--nproc-per-node 2" in done.stderr


def test_refusals_come_before_any_process(plan: Plan) -> None:
    wrong = plan.replace(layout=plan.layout.replace(zero=3, sync="parameter_server"))
    with pytest.raises(InputError, match="sync=parameter_server with zero=3"):
        run_plan(wrong, RunOptions(steps=1))


def test_held_bytes_count_states_once_per_dp_group_under_zero() -> None:
    count = held_bytes(make_plan("llama", dtype="fp32")) / 16
    assert held_bytes(make_plan("llama", dtype="fp32", dp=2, zero=0)) == 32 * count
    assert held_bytes(make_plan("llama", dtype="fp32", dp=2, zero=1)) == 24 * count
    assert held_bytes(make_plan("llama", dtype="fp32", dp=2, zero=2)) == 20 * count
    assert held_bytes(make_plan("llama", dtype="fp32", dp=2, zero=3)) == 16 * count
    assert held_bytes(make_plan("llama", dtype="bf16")) == 18 * count
