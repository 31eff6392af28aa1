"""The supervisor with plain Python processes as ranks: no torch, so every case takes a second."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from executor.processes import progress
from executor.processes.supervisor import DIRECTORY, RunError, supervise, write_report

RANK_OF = f"import os, sys, time; rank = int(os.environ['RANK']); at = os.environ['{DIRECTORY}']\n"
ROOT = Path(__file__).resolve().parents[3]


def run(script: str, folder: Path, ranks: int = 3, timeout_seconds: float = 30.0) -> None:
    command = [sys.executable, "-c", RANK_OF + script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervise(command, ranks, environment, folder, timeout_seconds)


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("pid.*")]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# A pid appears whole: readers poll for the name, so it is renamed into place.
NOTE_PID = (
    "open(f'{at}/new.{rank}', 'w').write(str(os.getpid()))\n"
    "os.rename(f'{at}/new.{rank}', f'{at}/pid.{rank}')\n"
)


def when_started(folder: Path, ranks: int, act: Callable[[int], None]) -> threading.Thread:
    """Act on rank 1's pid once all ranks have written theirs."""

    def wait() -> None:
        while len(list(folder.glob("pid.*"))) < ranks:
            time.sleep(0.01)
        act(int((folder / "pid.1").read_text()))

    # a run that ends before its ranks start must not keep the tests from ending
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_ranks_learn_their_place(tmp_path: Path) -> None:
    run("open(f'{at}/seen.{rank}', 'w').write(os.environ['WORLD_SIZE'])", tmp_path)
    assert [(tmp_path / f"seen.{rank}").read_text() for rank in range(3)] == ["3"] * 3


def test_a_killed_rank_is_named_and_nobody_stays(tmp_path: Path) -> None:
    thread = when_started(tmp_path, 3, lambda pid: os.kill(pid, signal.SIGKILL))
    start = time.perf_counter()
    with pytest.raises(RunError, match=r"rank 1 was killed by signal 9 \(SIGKILL\)"):
        run(NOTE_PID + "time.sleep(60)", tmp_path)
    thread.join()
    assert time.perf_counter() - start < 30  # not the minute that the others sleep
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_an_exit_code_is_named_with_stderr(tmp_path: Path) -> None:
    script = "if rank == 2: sys.stderr.write('the disk is full'); sys.exit(7)\ntime.sleep(60)"
    with pytest.raises(RunError, match=r"(?s)rank 2 ended with exit code 7.*the disk is full"):
        run(script, tmp_path)


# Ranks that fail in an order do so by what the others have done, not by clocks: a report comes
# before its rank's end, and no rank ends before all that are to fail have reported.
FAIL = """
from executor.processes.supervisor import write_report
from pathlib import Path
def wait_for(*names):
    while not all(os.path.exists(f'{at}/{name}') for name in names):
        time.sleep(0.01)
def fail(text, *others):
    write_report(Path(at), rank, RuntimeError(text))
    wait_for(*(f'report.{other}' for other in others))
    os._exit(1)
def is_stopped(other):
    wait_for(f'pid.{other}')
    stat = open('/proc/' + open(f'{at}/pid.{other}').read() + '/stat').read()
    return stat.rpartition(')')[2].split()[0] == 'T'
"""


def test_the_first_to_raise_is_blamed_not_its_neighbours(tmp_path: Path) -> None:
    script = FAIL + (
        "if rank == 1: fail('out of paper', 0, 2)\n"
        "wait_for('report.1')\n"
        "fail('Connection closed by peer', 2 - rank)"
    )
    with pytest.raises(RunError, match=r"rank 1 failed: RuntimeError: out of paper"):
        run(script, tmp_path)


def test_a_stopped_rank_is_named_when_the_others_time_out(tmp_path: Path) -> None:
    thread = when_started(tmp_path, 3, lambda pid: os.kill(pid, signal.SIGSTOP))
    script = (
        NOTE_PID
        + FAIL
        + (
            "if rank == 1: time.sleep(60)\n"
            "while not is_stopped(1): time.sleep(0.01)\n"
            "fail('Timed out waiting 1000ms for recv', 2 - rank)"
        )
    )
    with pytest.raises(RunError, match=r"rank 1 stopped making progress.*process is stopped"):
        run(script, tmp_path, timeout_seconds=1)
    thread.join()
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_a_busy_rank_is_named_when_the_others_time_out(tmp_path: Path) -> None:
    script = FAIL + "if rank == 2: time.sleep(60)\nfail('Timed out waiting 1000ms', 1 - rank)"
    with pytest.raises(RunError, match=r"rank 2 stopped making progress.*neither answered"):
        run(script, tmp_path, timeout_seconds=1)


def test_silence_of_all_ranks_ends_the_run_and_says_where_they_are(tmp_path: Path) -> None:
    script = (
        "from executor.processes.progress import Progress\nfrom pathlib import Path\n"
        "Progress(Path(at) / 'progress', rank).mark(f'step 0, {rank}F0')\ntime.sleep(60)"
    )
    start = time.perf_counter()
    with pytest.raises(RunError, match=r"(?s)rank 0: step 0, 0F0\n.*rank 1: step 0, 1F0"):
        run(script, tmp_path, ranks=2, timeout_seconds=0.5)
    assert time.perf_counter() - start < 30


def test_ranks_may_start_slowly_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("time.sleep(2.5)", tmp_path, timeout_seconds=0.1)
    monkeypatch.setattr(progress, "STARTING_SECONDS", 0.5)
    with pytest.raises(RunError, match=r"(?s)within the timeout of 0.5 s.*rank 1: starting"):
        run("time.sleep(60)", tmp_path, timeout_seconds=0.1)


def test_progress_keeps_the_last_mark_of_every_rank(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    progress.create(path, 2)
    one = progress.Progress(path, 1)
    one.prefix = "step 3, "
    one.mark("x" * 80)
    nothing, something = progress.read(path, 2)
    assert nothing.doing == ""
    assert something.doing == "step 3, " + "x" * 48
    assert something.at_seconds <= time.perf_counter()
    progress.Progress(None, 0).mark("nowhere")


def test_report_tells_timeouts_from_errors(tmp_path: Path) -> None:
    write_report(tmp_path, 0, RuntimeError("Timed out waiting 5ms"))
    write_report(tmp_path, 1, ValueError("no"))
    assert '"timed_out": true' in (tmp_path / "report.0").read_text()
    assert '"timed_out": false' in (tmp_path / "report.1").read_text()


LAUNCHER = """
import sys
from pathlib import Path
from executor.processes.supervisor import supervise
import os
script = '''
import os, time
from executor.processes.orphans import die_with_parent
die_with_parent(int(os.environ["MESHWRIGHT_PARENT"]))
at, rank = os.environ["MESHWRIGHT_RUN"], os.environ["RANK"]
NOTE_PID
time.sleep(60)
'''
supervise([sys.executable, "-c", script], 2, dict(os.environ), Path(sys.argv[1]), 60)
""".replace("NOTE_PID", NOTE_PID)


@pytest.mark.parametrize("stopped", [False, True])
def test_no_rank_outlives_a_killed_launcher(tmp_path: Path, stopped: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    with subprocess.Popen(command, env=environment) as launcher:
        while len(pids(tmp_path)) < 2:
            assert launcher.poll() is None
            time.sleep(0.02)
        if stopped:
            os.kill(pids(tmp_path)[0], signal.SIGSTOP)
        launcher.kill()
    deadline = time.perf_counter() + 30
    while any(alive(pid) for pid in pids(tmp_path)) and time.perf_counter() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids(tmp_path))
