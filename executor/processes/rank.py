"""Rank: how one process of a job finds its place, its device and the other ranks, and how it ends.

RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT come from our launcher, from torchrun or
from a user. Exit code 2: bad input (an address where nobody is, too, unless our launcher made it),
1: anything else.
"""

import datetime
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from executor.formats import set_matrix_units
from executor.parallel.mesh import Mesh, make_mesh
from executor.processes.job import check_alike, told
from executor.processes.orphans import die_with_parent
from executor.processes.progress import MEETING, STARTING_SECONDS, Progress
from executor.processes.rendezvous import NotMetError, meet, unconnected
from executor.processes.supervisor import DIRECTORY, PARENT, write_report
from planner.spec import runnable
from planner.spec.cluster import Backend
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from profiler.machine import enter_network


def own_rank(plan: Plan, module: str, command: str) -> int:
    """This process's rank. module: what is run with `-m`; command: ours. Raises InputError."""
    needed = plan.layout.devices
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise InputError(
            f"RANK and WORLD_SIZE are not set; start all ranks with `{command}` or "
            f"`torchrun --standalone --nproc-per-node {needed} -m {module} PLAN`"
        )
    if (given := _number("WORLD_SIZE")) != needed:
        raise InputError(
            f"WORLD_SIZE is {given}, the plan ({plan.layout}) needs {needed} ranks; "
            f"start it with --nproc-per-node {needed}"
        )
    if (rank := _number("RANK")) >= needed:
        raise InputError(f"RANK is {rank}, of {needed} ranks; give one from 0 to {needed - 1}")
    return rank


def _number(key: str, default: str | None = None) -> int:
    """An environment variable that counts. Raises InputError."""
    text = os.environ.get(key, default)
    if text is None or not text.isdecimal():
        raise InputError(f"{key} is {text!r}; it must be a number from 0 on")
    return int(text)


def own_device(backend: Backend, plan: Plan) -> torch.device:
    """The CPU, with one thread, or this rank's GPU."""
    set_matrix_units(plan.workload.dtype)
    if backend == "gloo":
        torch.set_num_threads(1)
        return torch.device("cpu")
    local, there = _number("LOCAL_RANK", "0"), torch.cuda.device_count()
    if local >= there:
        raise InputError(
            f"LOCAL_RANK is {local}, this machine has {there} GPUs; start no more ranks on it"
        )
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def join(plan: Plan, rank: int, backend: Backend, options: Any, progress: Progress) -> Mesh:
    """Meet the other ranks and make the process groups. options: a dataclass with timeout_seconds.

    Raises NotMetError, and InputError where ranks were told different things.
    """
    progress.mark(MEETING)
    enter_network(rank)
    timeout = datetime.timedelta(seconds=options.timeout_seconds)
    both = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    store, _, ranks = meet(max(timeout, datetime.timedelta(seconds=STARTING_SECONDS)))
    try:
        check_alike(store, rank, ranks, told(plan, options))
    except dist.DistError as error:
        raise NotMetError(f"rank {rank} met the others, and some are gone: {error}") from None
    try:
        dist.init_process_group(both, store=store, rank=rank, world_size=ranks, timeout=timeout)
    except RuntimeError as error:
        raise NotMetError(unconnected(rank, error)) from None
    mesh = make_mesh(plan.layout, rank, backend, timeout, bool(runnable.experts(plan.model)))
    assert mesh is not None
    return mesh


def under_launcher() -> bool:
    """Whether our own launcher started this process; torchrun does not set its directory."""
    return DIRECTORY in os.environ


def own_progress(rank: int) -> Progress:
    """Where this rank notes what it does."""
    return Progress(Path(os.environ[DIRECTORY]) / "progress" if under_launcher() else None, rank)


def finish(work: Callable[[], int]) -> NoReturn:
    """Do a rank's work, tell the launcher of a failure, and end the process.

    It ends without destructors: gloo's threads abort a process that takes its groups down late.
    """
    if PARENT in os.environ:
        die_with_parent(int(os.environ[PARENT]))
    try:
        code = work()
    except InputError as error:
        _report(error)
        sys.stderr.write(f"executor: {error}\n")
        code = 2
    except NotMetError as error:
        _report(error)
        sys.stderr.write(f"executor: {error}\n")
        code = 1 if under_launcher() else 2
    except Exception as error:  # a rank that fails must tell its parent, whatever it was
        _report(error)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _report(error: Exception) -> None:
    if under_launcher():
        write_report(Path(os.environ[DIRECTORY]), int(os.environ["RANK"]), error)
