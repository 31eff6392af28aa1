"""Eight processes that run plan after plan in one job: starting torch takes seconds, so one
process imports it and the eight are forked from that one."""

import contextlib
import datetime
import multiprocessing as mp
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from profiler.machine import rank_environment

RANKS = 8
TIMEOUT = datetime.timedelta(seconds=120)
"""Far more than a rank that shares its core with many others needs between two messages."""


class Pool:
    """Calls a module-level function on every process at once."""

    def __init__(self, connections: list[Any]):
        self.connections = connections
        self.broken = False

    def run(self, job: Callable[..., Any], *args: Any) -> list[Any]:
        """Results of job(rank, *args) by rank. The job must be the same on all ranks."""
        assert not self.broken, "an earlier job failed on some rank and the group is gone"
        for connection in self.connections:
            connection.send((job, args))
        answers = [connection.recv() for connection in self.connections]
        failures = [text for ok, text in answers if not ok]
        self.broken = bool(failures)
        assert not failures, "\n".join(failures)
        return [value for _, value in answers]


@contextlib.contextmanager
def started() -> Iterator[Pool]:
    """A pool; its processes end with the block."""
    os.environ.update(rank_environment())
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(
        [
            *("executor.runner", "hypothesis", "pytest", "torch.distributed.pipelining"),
            *("tests.executor.users", "tests.executor.by_hand"),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe() for _ in range(RANKS)]
        processes = [
            context.Process(target=_work, args=(rank, folder, pipe[1]), daemon=True)
            for rank, pipe in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()  # else nobody would see that a process has died
        try:
            yield Pool([pipe[0] for pipe in pipes])
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()


def _work(rank: int, folder: str, connection: Any) -> None:
    torch.set_num_threads(1)
    store = f"file://{Path(folder) / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=TIMEOUT)
    while True:
        job, args = connection.recv()
        try:
            connection.send((True, job(rank, *args)))
        except Exception:
            connection.send((False, f"rank {rank}: {traceback.format_exc()}"))
