"""The processes of ranks that a test's own process has started."""

import os
from pathlib import Path


def started(module: str) -> list[int]:
    """Children that run `python -m` a module whose name begins so."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (stat.parent / "cmdline").read_bytes()
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and f"-m\0{module}".encode() in command:
            found.append(int(stat.parent.name))
    return sorted(found)
