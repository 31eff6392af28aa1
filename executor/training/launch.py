"""Launch: train a plan on this machine, one process per rank."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from executor import refusals
from executor.processes import launch
from executor.processes.launch import held_bytes
from executor.processes.supervisor import supervise
from executor.training import bar, checkpoints, history, record, tasks
from executor.training.options import TrainOptions, words
from executor.training.session import RESULT
from planner.spec import documents
from planner.spec.checkpoint import Record
from planner.spec.cluster import Backend
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from profiler.machine import describe


def train_plan(plan: Plan, options: TrainOptions, gpus: Sequence[int] | None = None) -> Trained:
    """Train with torch.distributed on this machine's CPU or GPUs. gpus: only on these.

    Raises InputError for a plan, task or machine that cannot train, RunError (naming the rank)
    when a rank dies, raises or hangs.
    """
    backend = check(plan, options)
    with tempfile.TemporaryDirectory(prefix="meshwright-") as folder:
        directory = Path(folder)
        path = documents.save(plan, directory / "plan.json")
        command = [sys.executable, "-m", "executor.training", str(path), *words(options)]
        environment = launch.environment(backend)
        if gpus is not None and backend == "nccl":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
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
    for folder, key in ((options.output, "-o"), (options.tensorboard, "--tensorboard")):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InputError(f"{key}: {folder} is a file; give a folder, or a name that is free")
    documents.check_place(options.output / RESULT)
    if (options.output / history.NAME).exists() and not options.resume:
        raise InputError(
            f"{options.output}: already holds a training ({history.NAME}); "
            f"go on with --resume, or give another folder with -o"
        )
    history.read(options.output / history.NAME)  # or it would end the ranks and the bar
    return backend


def find_checkpoint(plan: Plan, options: TrainOptions) -> list[str]:
    """What --resume will do, for the user. Raises InputError where it cannot."""
    notes: list[str] = []
    root = options.output / checkpoints.FOLDER
    for folder in checkpoints.whole(root, notes)[:1]:
        found = documents.load(Record, folder / record.NAME)
        record.check(found, plan, options, folder)
        return [*notes, checkpoints.going_on(folder, found)]
    if notes:
        raise InputError("\n".join([*notes, checkpoints.none_left(root)]))
    return [f"{root}: holds no checkpoint; starting from the beginning"]
