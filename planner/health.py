"""Health: what this machine has, and what is missing for which command."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

NEEDS = {
    "numpy": "planning",
    "networkx": "planning",
    "pydantic": "planning",
    "pandas": "compare, report, demo",
    "matplotlib": "report, demo",
    "torch": "profile, run, demo",
}
REMEDY = {"torch": "pip install -c constraints.txt -e '.[exec]'"}


def examine() -> list[dict[str, str]]:
    """One row per check: what, found, needed for, remedy (empty when all is well)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [
        _row("python", platform.python_version(), "everything", _python_remedy()),
        _row("cores", str(cores), "demo (two ranks at least)", ""),
        _row("GPUs", _gpus(), "nccl; without them ranks run on gloo", ""),
    ]
    return rows + [_package(name, use) for name, use in NEEDS.items()]


def _python_remedy() -> str:
    return "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"


def _gpus() -> str:
    return str(len(list(Path("/dev").glob("nvidia[0-9]*"))))


def _package(name: str, use: str) -> dict[str, str]:
    try:
        return _row(name, metadata.version(name), use, "")
    except metadata.PackageNotFoundError:
        return _row(name, "missing", use, REMEDY.get(name, "pip install -e ."))


def _row(what: str, found: str, needed_for: str, remedy: str) -> dict[str, str]:
    return {"what": what, "found": found, "needed for": needed_for, "remedy": remedy}
