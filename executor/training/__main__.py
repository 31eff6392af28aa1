"""One rank of a training, under our launcher or under torchrun:

    torchrun --standalone --nproc-per-node N -m executor.training plan.json --task language \
        --output DIR

Options: executor.training.options. Under torchrun the first rank shows the bar and the metric.
Of several plans the one for WORLD_SIZE ranks is taken, so a job whose size changes can go on.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from executor import refusals
from executor.parallel.collectives import barrier
from executor.processes.rank import finish, join, own_device, own_progress, own_rank, under_launcher
from executor.training import bar, options, tasks
from executor.training.session import Session
from planner.spec import documents
from planner.spec.plan import Plan
from profiler.machine import describe

COMMAND = "meshwright train --plan PLAN"


def main() -> int:
    """Train this rank's share; returns the exit code."""
    given = _parser().parse_args()
    chosen = options.read(given)
    plan = _plan_of_size([documents.load(Plan, path) for path in given.plan])
    refusals.check(plan)
    tasks.check(chosen.task, plan)
    rank, machine = own_rank(plan, "executor.training", COMMAND), describe()
    backend = refusals.choose_backend(plan, machine, chosen.backend)
    progress = own_progress(rank)
    device = own_device(backend, plan)
    mesh = join(plan, rank, backend, chosen, progress)
    session = Session(plan, chosen, mesh, device, backend, machine, progress)
    speaks = rank == 0 and not under_launcher()
    shown = bar.shown(chosen.output, chosen.steps, chosen.task)
    with shown if speaks else contextlib.nullcontext():
        found = session.train()
    if speaks and found is not None:
        sys.stderr.write(f"{found.metric} {found.value:.4f}\n")
    barrier(mesh.everyone, device)
    return 0


def _plan_of_size(plans: Sequence[Plan]) -> Plan:
    """The plan for as many ranks as there are; the first where none is, which says so."""
    ranks = int(os.environ.get("WORLD_SIZE", "0"))
    return next((plan for plan in plans if plan.layout.devices == ranks), plans[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m executor.training", description=__doc__)
    parser.add_argument("plan", type=Path, nargs="+")
    options.add_to(parser)
    return parser


if __name__ == "__main__":
    finish(main)
