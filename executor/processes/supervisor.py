"""Supervisor: start one process per rank, wait for all, and say which one failed and how.

    a rank dies        the others are killed; the message names it, its signal or exit code, what
                       it was doing (executor.processes.progress) and the last lines of its stderr
    a rank raises      the same; its report (report.N) says when, so that the ranks that fail
                       only because their neighbour is gone are not blamed; nor are those that
                       gloo aborts for it
    a rank finds that what was asked for is wrong (InputError): the same error for the caller
    a rank hangs       its neighbours time out; the rank that did not is named, a stopped process
                       first. If nobody times out, silence of all ranks ends the run (until
                       they are ready, STARTING_SECONDS of it)

No process outlives the call, and none outlives this process (executor.processes.orphans).
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from executor.processes import progress
from planner.spec.documents import InputError

POLL_SECONDS = 0.02
GRACE_SECONDS = 0.4
"""How long the neighbours of a failed rank may take to fail too, before they are killed."""
TIMEOUT_GRACE_SECONDS = 1.5
"""The same for ranks that wait: their timeouts end a little apart."""
TAIL_LINES = 15
DIRECTORY = "MESHWRIGHT_RUN"
PARENT = "MESHWRIGHT_PARENT"


class RunError(Exception):
    """A run that failed; the message names the rank.

    lost: the ranks that died, raised or hung; none where nobody can tell.
    """

    def __init__(self, message: str, lost: tuple[int, ...] = ()):
        super().__init__(message)
        self.lost = lost


@dataclass(frozen=True, slots=True)
class Report:
    """What a failing rank wrote down: when, whether it had waited too long or found its input
    wrong, and why."""

    at_seconds: float
    timed_out: bool
    bad_input: bool
    message: str


def write_report(directory: Path, rank: int, error: BaseException) -> None:
    """Write down that a rank fails now. The rank's side."""
    bad_input = isinstance(error, InputError)
    text = str(error) if bad_input else f"{type(error).__name__}: {error}"
    timed_out = not bad_input and any(word in text.lower() for word in ("timed out", "timeout"))
    report = Report(time.perf_counter(), timed_out, bad_input, text)
    (directory / f"report.{rank}").write_text(json.dumps(dataclasses.asdict(report)))


def supervise(
    command: Sequence[str],
    ranks: int,
    environment: Mapping[str, str],
    directory: Path,
    timeout_seconds: float,
) -> None:
    """Run the command once per rank, until all have ended well. Raises RunError,
    and InputError where a rank did.

    Every process gets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and the directory
    for its report; stdout and stderr go to files there.
    """
    progress.create(directory / "progress", ranks)
    shared = {
        **environment,
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        DIRECTORY: str(directory),
        PARENT: str(os.getpid()),
    }
    team = _Team(directory, [])
    with contextlib.ExitStack() as stack:
        stack.callback(team.kill)
        for rank in range(ranks):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            out, err = (stack.enter_context(team.log(rank, name)) for name in ("out", "err"))
            team.processes.append(subprocess.Popen(command, env=own, stdout=out, stderr=err))
        team.wait(timeout_seconds)


class _Team:
    """The processes of one run, by rank."""

    def __init__(self, directory: Path, processes: list[subprocess.Popen[bytes]]):
        self.directory, self.processes = directory, processes
        self.started = time.perf_counter()

    def log(self, rank: int, name: str) -> IO[bytes]:
        return (self.directory / f"{name}.{rank}").open("wb")

    def wait(self, timeout_seconds: float) -> None:
        while any(code is None for code in self.codes()):
            if any(self.codes()):
                break
            limit = max(timeout_seconds, self._patience())
            if self._silence() > limit + TIMEOUT_GRACE_SECONDS:
                raise self._hang(limit)
            time.sleep(POLL_SECONDS)
        if any(self.codes()):
            raise self._failure(max(timeout_seconds, self._patience()))

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()

    def codes(self) -> list[int | None]:
        return [process.poll() for process in self.processes]

    def _marks(self) -> list[progress.Mark]:
        return progress.read(self.directory / "progress", len(self.processes))

    def _silence(self) -> float:
        newest = max(mark.at_seconds for mark in self._marks())
        return time.perf_counter() - max(newest, self.started)

    def _patience(self) -> float:
        """How long ranks may be silent, whatever was asked for."""
        starting = any(mark.starting for mark in self._marks())
        return progress.STARTING_SECONDS if starting else 0.0

    def _failure(self, timeout_seconds: float) -> RunError | InputError:
        time.sleep(GRACE_SECONDS)
        dead = [rank for rank in self._failed() if self._report(rank) is None]
        if dead:
            first = min(dead, key=lambda rank: self.codes()[rank] == -signal.SIGABRT)
            killed = tuple(rank for rank in dead if self.codes()[rank] != -signal.SIGABRT)
            return self._blame(first, _ending(self.codes()[first]), killed or (first,))
        first = min(self._failed(), key=self._failed_at)
        report = self._report(first)
        assert report is not None
        if report.timed_out:
            if not self._stopped():
                time.sleep(TIMEOUT_GRACE_SECONDS)
            return self._hang(timeout_seconds)
        if report.bad_input:
            return InputError(f"rank {first}: {report.message}")
        return self._blame(first, f"failed: {report.message}", (first,))

    def _failed(self) -> list[int]:
        return [rank for rank, code in enumerate(self.codes()) if code]

    def _alive(self) -> list[int]:
        return [rank for rank, code in enumerate(self.codes()) if code is None]

    def _stopped(self) -> list[int]:
        return [rank for rank in self._alive() if _state(self.processes[rank].pid) in "Tt"]

    def _failed_at(self, rank: int) -> float:
        report = self._report(rank)
        return report.at_seconds if report else 0.0

    def _report(self, rank: int) -> Report | None:
        try:
            return Report(**json.loads((self.directory / f"report.{rank}").read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _hang(self, timeout_seconds: float) -> RunError:
        """Who stopped: a stopped process, or whoever runs on while the others timed out."""
        stopped = self._stopped()
        suspects = stopped or (self._alive() if self._failed() else [])
        limit = f"no answer within the timeout of {timeout_seconds:g} s"
        if suspects:
            why = "its process is stopped" if stopped else "it neither answered nor failed"
            lost = tuple(suspects) if stopped else (suspects[0],)
            return self._blame(suspects[0], f"stopped making progress ({why}); {limit}", lost)
        return RunError(
            f"{limit}; every rank waits:\n"
            + "\n".join(
                f"  rank {rank}: {mark.doing or progress.STARTING}"
                for rank, mark in enumerate(self._marks())
            )
        )

    def _blame(self, rank: int, what: str, lost: tuple[int, ...]) -> RunError:
        mark = self._marks()[rank]
        lines = (self.directory / f"err.{rank}").read_text(errors="replace").splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
        return RunError(
            f"rank {rank} {what}\n"
            f"it was at: {mark.doing or progress.STARTING}; the other ranks were ended\n"
            f"last lines of its stderr:\n{tail or '  (none)'}",
            lost,
        )


def _ending(code: int | None) -> str:
    assert code
    if code > 0:
        return f"ended with exit code {code}"
    note = " (the system may have run out of memory)" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({signal.Signals(-code).name}){note}"


def _state(pid: int) -> str:
    """The state letter of a process: T is stopped. Empty where /proc does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "?"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
