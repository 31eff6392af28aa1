"""Checkpoints: a folder of states of a training, of which the newest whole one counts.

    DIR/checkpoints/step-00000100           a whole checkpoint: it is renamed when it is complete
    DIR/checkpoints/step-00000150.partial   one that was being written; removed by the next
    DIR/checkpoints/latest                  a link to the newest

Writing never touches an older checkpoint, and only then are the older ones but `keep` removed. So
whatever happens while one is written (a rank dies, the disk is full) the one before is there.
Files are synced before the rename and the folder after it. On several machines DIR must be a file
system that all of them see.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException

from executor.parallel.mesh import Mesh
from executor.states.data_parallel import Updater
from executor.training import record, state
from executor.training.options import TrainOptions
from planner.spec import documents
from planner.spec.checkpoint import Record
from planner.spec.documents import InputError
from planner.spec.plan import Plan

Result = TypeVar("Result")
FOLDER, LATEST, PARTIAL = "checkpoints", "latest", ".partial"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one training, as a rank sees them."""

    plan: Plan
    options: TrainOptions
    mesh: Mesh
    data: str

    def save(self, updater: Updater, step: int) -> None:
        """Write the state before a step. Collective. Raises InputError on every rank alike."""
        root = self.options.output / FOLDER
        path = root / _name(step)
        partial = path.with_name(path.name + PARTIAL)

        def begin() -> None:
            clear_partial(root)
            partial.mkdir(parents=True)

        def finish() -> None:
            found = record.describe(self.plan, self.options, self.data, step, record.sizes(partial))
            documents.save(found, partial / record.NAME)
            _sync(partial / record.NAME)
            _sync(partial)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            _sync(root)
            _point(root / LATEST, path.name)
            _remove_old(root, self.options.keep)

        try:
            self._shared(begin)
            state.save(updater, self.mesh, partial)
            self._shared(finish)
        except (CheckpointException, OSError) as error:
            if self.mesh.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
            raise InputError(_cannot_be_written(path, step, error, root)) from error

    def resume(self, updater: Updater) -> tuple[int, list[str]]:
        """Read the newest whole checkpoint. Collective; returns the step to go on with (0 where
        there is none) and what to tell the user. Raises InputError."""
        root = self.options.output / FOLDER
        steps, notes = self._shared(lambda: _newest_first(root))
        for step in steps:
            folder = root / _name(step)
            found = documents.load(Record, folder / record.NAME)
            record.check(found, self.plan, self.options, folder)
            record.check_data(found, self.data, folder)
            try:
                state.load(updater, self.mesh, folder)
            except CheckpointException as error:
                notes.append(f"{folder}: cannot be read: {_reason(error)}; trying an older one")
                continue
            updater.steps = found.step
            return found.step, [*notes, going_on(folder, found)]
        if notes:
            raise InputError("\n".join([*notes, none_left(root)]))
        return 0, [f"{root}: holds no checkpoint; starting from the beginning"]

    def _shared(self, work: Callable[[], Result]) -> Result:
        """What the first rank finds, on every rank. Raises its OSError on every rank."""
        shared: list[Any] = [None, ""]
        if self.mesh.rank == 0:
            try:
                shared[0] = work()
            except (OSError, InputError) as error:
                shared[1] = str(error)
        if self.mesh.everyone is not None:
            first = dist.get_global_rank(self.mesh.everyone, 0)
            dist.broadcast_object_list(shared, src=first, group=self.mesh.everyone)
        if shared[1]:
            raise OSError(shared[1])
        found: Result = shared[0]
        return found


def whole(root: Path, notes: list[str]) -> list[Path]:
    """The folders of whole checkpoints, newest first; notes says of the others what is wrong."""
    found = []
    for folder in _complete(root):
        if (problem := record.damage(folder)) is None:
            found.append(folder)
        else:
            notes.append(f"{folder}: is damaged ({problem}); going back to an older one")
    return found


def clear_partial(root: Path) -> None:
    """Remove checkpoints that were being written when their training ended."""
    for folder in root.glob(f"step-*{PARTIAL}"):
        shutil.rmtree(folder)


def going_on(folder: Path, found: Record) -> str:
    """Says from where a training goes on."""
    return f"going on with step {found.step} from {folder}, made by {found.layout}"


def none_left(root: Path) -> str:
    """Says that there is nothing to go on from."""
    return f"{root}: holds no whole checkpoint; start anew in another folder"


def _newest_first(root: Path) -> tuple[list[int], list[str]]:
    """The steps of the whole checkpoints, and what is wrong with the others."""
    notes: list[str] = []
    return [_step(folder) for folder in whole(root, notes)], notes


def _complete(root: Path) -> list[Path]:
    """All renamed checkpoints, newest first."""
    folders = [path for path in root.glob("step-*") if path.name == _name(_step(path))]
    return sorted(folders, key=_step, reverse=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step(folder: Path) -> int:
    """The step of a folder's name; -1 of a name that is not ours."""
    text = folder.name.removeprefix("step-")
    return int(text) if text.isdecimal() else -1


def _remove_old(root: Path, keep: int) -> None:
    """Keep the newest whole ones; damaged ones do not count and go with the old."""
    kept = set(whole(root, [])[:keep])
    for folder in _complete(root):
        if folder not in kept:
            shutil.rmtree(folder)


def _point(link: Path, target: str) -> None:
    """Make a link to the newest, in one step."""
    new = link.with_name(link.name + PARTIAL)
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_be_written(path: Path, step: int, error: Exception, root: Path) -> str:
    left = whole(root, [])
    kept = f"the last whole one is {left[0]}" if left else "there is no earlier one"
    return (
        f"{path}: the checkpoint before step {step} cannot be written: {_reason(error)}; {kept}. "
        f"Make room there, then go on with --resume"
    )


def _reason(error: Exception) -> str:
    """The first rank's failure inside a CheckpointException, or the error itself."""
    if isinstance(error, CheckpointException):
        rank, (inner, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {inner}"
    return str(error)
