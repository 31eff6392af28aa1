"""Launch: run a plan on this machine, one process per rank, and return what was measured."""

import dataclasses
import operator
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from executor import refusals
from executor.adapted.model import adapt
from executor.adapted.source import build
from executor.formats import gradient_dtype, weight_dtype
from executor.options import RunOptions
from executor.processes.supervisor import supervise
from executor.transformer.model import meta_model
from planner.spec import documents
from planner.spec.cluster import Backend
from planner.spec.measured import Measured
from planner.spec.plan import Plan
from profiler.machine import describe, rank_environment

ROOT = Path(__file__).resolve().parents[2]


def run_plan(plan: Plan, options: RunOptions | None = None, **changes: Any) -> Measured:
    """Run a plan with torch.distributed on this machine's CPU or GPUs.

    changes: fields of RunOptions to set (steps, warmup, timeout_seconds, backend, seed,
    learning_rate, clip_norm, module). Raises InputError for a plan or machine that cannot run
    (some of it only ranks can find), RunError (naming the rank) when a rank dies, raises or hangs.
    """
    options = dataclasses.replace(options or RunOptions(), **changes)
    backend = check(plan, options)
    with tempfile.TemporaryDirectory(prefix="meshwright-") as folder:
        directory = Path(folder)
        documents.save(plan, directory / "plan.json")
        command = rank_command(directory, options)
        processes = environment(backend)
        supervise(command, plan.layout.devices, processes, directory, options.timeout_seconds)
        return documents.load(Measured, directory / "measured.json")


def check(plan: Plan, options: RunOptions) -> Backend:
    """The backend to run on. Raises InputError unless this machine can run the plan."""
    refusals.check(plan)
    if options.module is not None:
        adapt(build(options.module, options.seed), plan)
    machine = describe()
    backend = refusals.choose_backend(plan, machine, options.backend)
    refusals.check_machine(plan, machine, backend, held_bytes(plan))
    return backend


def held_bytes(plan: Plan) -> float:
    """Weights, gradients and AdamW's states of all ranks together: a lower bound of memory."""
    dtype, layout = plan.workload.dtype, plan.layout
    weight, gradient = weight_dtype(dtype), gradient_dtype(dtype, plan.runtime)
    states = (3 if weight != gradient else 2) * gradient.itemsize
    parameters = sum(p.numel() for p in meta_model(plan.model, 1).parameters())
    replicas = layout.dp * layout.cp
    kept = (weight.itemsize, gradient.itemsize, states)
    fewest = replicas // (layout.shard or replicas)
    zero = 1 if layout.sync == "parameter_server" else layout.zero
    copies = (fewest if zero >= stage else replicas for stage in (3, 2, 1))
    return float(parameters * sum(map(operator.mul, copies, kept)))


def rank_command(directory: Path, options: RunOptions) -> list[str]:
    """The command line of one rank."""
    more = [] if options.clip_norm is None else ["--clip-norm", repr(options.clip_norm)]
    more += [] if options.module is None else ["--module", options.module]
    return [
        *(sys.executable, "-m", "executor", str(directory / "plan.json")),
        *("--output", str(directory / "measured.json")),
        *("--steps", str(options.steps), "--warmup", str(options.warmup)),
        *("--timeout", f"{options.timeout_seconds}s", "--backend", options.backend),
        *("--seed", str(options.seed), "--learning-rate", repr(options.learning_rate)),
        *more,
    ]


def environment(backend: Backend) -> dict[str, str]:
    """Environment variables of every rank's process."""
    device = "cuda" if backend == "nccl" else "cpu"
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    search = os.pathsep.join(path for path in paths if path)
    return {**os.environ, **rank_environment(device), "PYTHONPATH": search}
