"""Team: worker processes that run the same task at once, so that profiles are taken under the
load of training. The parent hands out tasks and gathers results; it computes nothing itself.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from profiler.machine import rank_environment

ROOT = Path(__file__).resolve().parent.parent
TASK_SECONDS = 300.0


class RunError(Exception):
    """A worker failed or did not answer in time."""


class Team:
    """`size` worker processes on a device kind. Use as a context manager: leaving it ends them."""

    def __init__(self, size: int, device: str = "cpu"):
        self.size, self.device = size, device
        self._folder = tempfile.TemporaryDirectory(prefix="meshwright-")
        self._log = Path(self._folder.name) / "log"
        self._writers: list[int] = []
        self._readers: list[int] = []
        self._joined: set[tuple[int, ...]] = set()
        self._rest = [b""] * size
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        theirs: list[tuple[int, int]] = []
        for _ in range(self.size):
            task_reader, task_writer = os.pipe()
            reply_reader, reply_writer = os.pipe()
            theirs.append((task_reader, reply_writer))
            self._writers.append(task_writer)
            self._readers.append(reply_reader)
        store = str(Path(self._folder.name) / "store")
        spec = json.dumps({"pipes": theirs, "device": self.device, "store": store})
        descriptors = [end for pair in theirs for end in pair]
        try:
            with self._log.open("wb") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "profiler.worker", spec],
                    env=_environment(self.device),
                    pass_fds=descriptors,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def join(self, groups: Iterable[tuple[int, ...]]) -> None:
        """Make process groups of these ranks, unless there are."""
        new = [group for group in groups if len(group) > 1 and group not in self._joined]
        if new:
            self._run("join", self.size, TASK_SECONDS, groups=new)
            self._joined.update(new)

    def run(
        self, task: str, members: int, timeout_seconds: float = TASK_SECONDS, **arguments: Any
    ) -> list[Any]:
        """Have the first `members` workers do a task; return their results by rank.

        Raises RunError when a worker fails, dies or stays silent for `timeout_seconds`.
        """
        assert 1 <= members <= self.size, f"{members} members in a team of {self.size}"
        self.join([tuple(range(members))])
        return self._run(task, members, timeout_seconds, **arguments)

    def _run(self, task: str, members: int, timeout_seconds: float, **arguments: Any) -> list[Any]:
        line = json.dumps({"task": task, "arguments": {"members": members, **arguments}}) + "\n"
        for writer in self._writers[:members]:
            try:
                os.write(writer, line.encode())
            except OSError:
                raise RunError(self._failure(f"worker ended before {task}")) from None
        replies = self._gather(task, members, time.monotonic() + timeout_seconds)
        for rank, reply in enumerate(replies):
            if "error" in reply:
                raise RunError(f"profiling {task} failed on rank {rank}:\n{reply['error']}")
        return [reply["result"] for reply in replies]

    def _gather(self, task: str, members: int, deadline: float) -> list[dict[str, Any]]:
        lines: dict[int, bytes] = {}
        with selectors.DefaultSelector() as selector:
            for rank in range(members):
                selector.register(self._readers[rank], selectors.EVENT_READ, rank)
            while len(lines) < members:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise RunError(self._failure(f"{task} did not end in time"))
                for key, _ in ready:
                    line = self._read(key.fd, key.data, task)
                    if line is not None:
                        lines[key.data] = line
                        selector.unregister(key.fd)
        return [json.loads(lines[rank]) for rank in range(members)]

    def _read(self, descriptor: int, rank: int, task: str) -> bytes | None:
        """One reply, or None while it is not complete."""
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            raise RunError(self._failure(f"worker {rank} ended during {task}"))
        line, newline, rest = (self._rest[rank] + chunk).partition(b"\n")
        self._rest[rank] = rest if newline else line
        return line if newline else None

    def _failure(self, what: str) -> str:
        self.close(keep_log=True)
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        self._folder.cleanup()
        last = "\n".join(text.splitlines()[-12:])
        return f"{what}; the workers' last words:\n{last or '(none)'}"

    def close(self, keep_log: bool = False) -> None:
        """End all workers. May be called again."""
        for descriptor in (*self._writers, *self._readers):
            os.close(descriptor)
        self._writers, self._readers = [], []
        if self._process.poll() is None:
            try:
                self._process.wait(2.0 if not keep_log else 0.2)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if not keep_log:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _environment(device: str) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **rank_environment(device), "PYTHONPATH": os.pathsep.join(paths)}
