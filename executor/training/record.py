"""Records of checkpoints (planner.spec.checkpoint): made, compared with a plan, and with the files.

Whatever decides what the next steps compute must be the same when a training goes on; the plan
need not be. The sizes of the files tell a truncated checkpoint from a whole one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from executor.training.options import TrainOptions
from planner.spec import documents
from planner.spec.checkpoint import Record
from planner.spec.documents import Document, InputError
from planner.spec.plan import Plan

NAME = "checkpoint.json"


def describe(
    plan: Plan, options: TrainOptions, data: str, step: int, file_bytes: dict[str, int]
) -> Record:
    """The record of a checkpoint that is made now."""
    return Record(
        step=step,
        task=options.task,
        data=data,
        model=plan.model,
        seq_len=plan.workload.seq_len,
        global_batch=plan.workload.global_batch,
        seed=options.seed,
        layout=plan.title,
        file_bytes=file_bytes,
    )


def check(found: Record, plan: Plan, options: TrainOptions, folder: Path) -> None:
    """Raise InputError unless a training of this plan can go on from a checkpoint."""
    wanted = describe(plan, options, found.data, found.step, {})
    for key, remedy in (
        ("task", "give the same --task"),
        ("model", "plan the same model"),
        ("seq_len", "plan with the same --seq-len"),
        ("global_batch", "plan with the same --global-batch"),
        ("seed", "give the same --seed"),
    ):
        old, new = getattr(found, key), getattr(wanted, key)
        if old != new:
            raise InputError(
                f"{folder}: was made with {_difference(key, old, new)}; the training could not "
                f"go on exactly. {remedy[0].upper()}{remedy[1:]}, or start anew in another folder"
            )
    if found.step > options.steps:
        raise InputError(
            f"{folder}: has {found.step} steps, and --steps {options.steps} asks for fewer; ask "
            f"for more, or start anew in another folder"
        )


def check_data(found: Record, data: str, folder: Path) -> None:
    """Raise InputError if a checkpoint was trained on other data."""
    if found.data != data:
        raise InputError(
            f"{folder}: was trained on the data {found.data}, this machine has {data} (another "
            f"version of Python); use the same, or start anew in another folder"
        )


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where nothing is."""
    try:
        found = documents.load(Record, folder / NAME)
    except InputError as error:
        return str(error)
    for name, size in found.file_bytes.items():
        path = folder / name
        held = path.stat().st_size if path.exists() else 0
        if held != size:
            return f"{path} holds {held} of {size} bytes"
    return None


def sizes(folder: Path) -> dict[str, int]:
    """The size of every file of a checkpoint."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _difference(key: str, old: Any, new: Any) -> str:
    """`model.hidden=32, the plan has 64`."""
    if isinstance(old, Document):
        path, old, new = next(_differences(key, old.model_dump(), new.model_dump()))
        return f"{path}={old}, the plan has {new}"
    return f"{key}={old}, here it is {new}"


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every leaf in which two nested values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from _differences(f"{key}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{key}.{index}", a, b)
    elif old != new:
        yield key, old, new
