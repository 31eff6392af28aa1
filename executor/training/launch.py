"""Launch: train a plan on this machine, one process per rank."""

import sys
import tempfile
from pathlib import Path

from executor import launch, refusals
from executor.launch import held_bytes
from executor.supervisor import supervise
from executor.training import bar, history, tasks
from executor.training.options import TrainOptions, words
from executor.training.session import RESULT
from planner.spec import documents
from planner.spec.cluster import Backend
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from profiler.machine import describe


def train_plan(plan: Plan, options: TrainOptions) -> Trained:
    """Train with torch.distributed on this machine's CPU or GPUs.

    Raises InputError for a plan, task or machine that cannot train, RunError (naming the rank)
    when a rank dies, raises or hangs.
    """
    backend = check(plan, options)
    with tempfile.TemporaryDirectory(prefix="meshwright-") as folder:
        directory = Path(folder)
        path = documents.save(plan, directory / "plan.json")
        command = [sys.executable, "-m", "executor.training", str(path), *words(options)]
        environment = launch.environment(backend)
        title = f"{options.task}, {plan.layout.devices} ranks"
        with bar.shown(options.output, options.steps, title):
            supervise(command, plan.layout.devices, environment, directory, options.timeout_seconds)
    return documents.load(Trained, options.output / RESULT)


def check(plan: Plan, options: TrainOptions) -> Backend:
    """The backend to train on. Raises InputError unless this machine can train the plan so."""
    refusals.check(plan)
    tasks.check(options.task, plan)
    machine = describe()
    backend = refusals.choose_backend(plan, machine, options.backend)
    refusals.check_machine(plan, machine, backend, held_bytes(plan))
    if (options.output / history.NAME).exists():
        raise InputError(
            f"{options.output}: already holds a training ({history.NAME}); "
            f"give another folder with -o"
        )
    return backend
