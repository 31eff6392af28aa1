"""Targets: a plan as files for whoever starts its ranks."""

import difflib
from collections.abc import Callable
from pathlib import Path

from planner.export import kubernetes, slurm, torchrun
from planner.export.job import Job
from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.plan import Plan

TARGETS: dict[str, Callable[[Job], dict[str, str]]] = {
    "torchrun": torchrun.files,
    "slurm": slurm.files,
    "kubernetes": kubernetes.files,
}


def export(plan: Plan, target: str) -> dict[str, str]:
    """The files of a target by name. Raises InputError."""
    if target not in TARGETS:
        close = difflib.get_close_matches(target, TARGETS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(TARGETS)}"
        raise InputError(f"--target: {target!r} is unknown; {hint}")
    return TARGETS[target](Job.of(plan))


def write(files: dict[str, str], folder: Path) -> list[Path]:
    """Write the files into a folder; scripts can be run. Raises InputError."""
    for name, text in files.items():
        path = documents.write_text(folder / name, text)
        if text.startswith("#!"):
            path.chmod(0o755)
    return [folder / name for name in files]
