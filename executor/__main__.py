"""One rank of a run, under our launcher or under torchrun:

torchrun --standalone --nproc-per-node N -m executor plan.json [-o measured.json]
"""

import argparse
from pathlib import Path

from executor import refusals
from executor.options import CHOICES, RunOptions, read_options
from executor.parallel.collectives import barrier
from executor.processes.rank import finish, join, own_device, own_progress, own_rank
from executor.train import Trainer, gather_results, measured
from planner.spec import documents
from planner.spec.plan import Plan
from profiler.machine import describe


def main() -> int:
    """Run this rank; returns the exit code."""
    arguments = _parser().parse_args()
    plan = documents.load(Plan, arguments.plan)
    options = _options(arguments)
    refusals.check(plan)
    rank, machine = own_rank(plan, "executor", "meshwright run PLAN"), describe()
    backend = refusals.choose_backend(plan, machine, options.backend)
    progress = own_progress(rank)
    device = own_device(backend, plan)
    mesh = join(plan, rank, backend, options, progress)
    result = Trainer(plan, mesh, device, options, progress).train()
    progress.mark("gathering results")
    results = gather_results(result, plan.layout.devices)
    if results is not None and arguments.output is not None:
        documents.save(measured(plan, results, options, machine, backend), arguments.output)
    barrier(mesh.everyone, device)
    return 0


def _options(given: argparse.Namespace) -> RunOptions:
    return read_options(
        given.steps,
        given.warmup,
        given.timeout,
        given.backend,
        given.seed,
        given.learning_rate,
        given.clip_norm,
        given.module,
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
    parser.add_argument("--module")
    return parser


if __name__ == "__main__":
    finish(main)
