"""One rank of a run, under our launcher or under torchrun:

    torchrun --standalone --nproc-per-node N -m executor plan.json [-o measured.json]

RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT come from the launcher. Exit code 2:
bad input, 1: anything else.
"""

import argparse
import datetime
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

from executor import refusals
from executor.collectives import barrier
from executor.formats import set_matrix_units
from executor.mesh import Mesh, make_mesh
from executor.options import CHOICES, RunOptions, read_options
from executor.orphans import die_with_parent
from executor.progress import Progress
from executor.supervisor import DIRECTORY, PARENT, write_report
from executor.train import Trainer, gather_results, measured
from planner.spec import documents
from planner.spec.cluster import Backend
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from profiler.machine import describe


def main() -> int:
    """Run this rank; returns the exit code."""
    if PARENT in os.environ:
        die_with_parent(int(os.environ[PARENT]))
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except InputError as error:
        _report(error)
        sys.stderr.write(f"executor: {error}\n")
        return 2
    except Exception as error:  # a rank that fails must tell its parent, whatever it was
        _report(error)
        traceback.print_exc()
        return 1


def _run(arguments: argparse.Namespace) -> int:
    plan = documents.load(Plan, arguments.plan)
    options = _options(arguments)
    refusals.check(plan)
    rank, machine = _own_rank(plan), describe()
    backend = refusals.choose_backend(plan, machine, options.backend)
    progress = Progress(_directory("progress"), rank)
    device = _device(backend, plan)
    mesh = _join(plan, rank, backend, options, progress)
    result = Trainer(plan, mesh, device, options, progress).train()
    progress.mark("gathering results")
    results = gather_results(result, plan.layout.devices)
    if results is not None and arguments.output is not None:
        documents.save(measured(plan, results, options, machine, backend), arguments.output)
    barrier(mesh.everyone, device)
    return 0


def _own_rank(plan: Plan) -> int:
    needed = plan.layout.devices
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise InputError(
            f"RANK and WORLD_SIZE are not set; start all ranks with `meshwright run PLAN` or "
            f"`torchrun --standalone --nproc-per-node {needed} -m executor PLAN`"
        )
    if (given := int(os.environ["WORLD_SIZE"])) != needed:
        raise InputError(
            f"WORLD_SIZE is {given}, the plan ({plan.layout}) needs {needed} ranks; "
            f"start it with --nproc-per-node {needed}"
        )
    return int(os.environ["RANK"])


def _device(backend: Backend, plan: Plan) -> torch.device:
    set_matrix_units(plan.workload.dtype)
    if backend == "gloo":
        torch.set_num_threads(1)
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _join(plan: Plan, rank: int, backend: Backend, options: RunOptions, progress: Progress) -> Mesh:
    progress.mark("meeting the other ranks")
    timeout = datetime.timedelta(seconds=options.timeout_seconds)
    both = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    dist.init_process_group(both, timeout=timeout)
    mesh = make_mesh(plan.layout, rank, backend, timeout)
    assert mesh is not None
    return mesh


def _directory(name: str) -> Path | None:
    return Path(os.environ[DIRECTORY]) / name if DIRECTORY in os.environ else None


def _report(error: Exception) -> None:
    if DIRECTORY in os.environ:
        write_report(Path(os.environ[DIRECTORY]), int(os.environ["RANK"]), error)


def _options(given: argparse.Namespace) -> RunOptions:
    return read_options(
        given.steps,
        given.warmup,
        given.timeout,
        given.backend,
        given.seed,
        given.learning_rate,
        given.clip_norm,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m executor", description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--timeout", default="60s")
    parser.add_argument("--backend", choices=CHOICES, default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clip-norm", type=float)
    return parser


def _end(code: int) -> NoReturn:
    """End without destructors: gloo's threads abort a process that takes its groups down late."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
