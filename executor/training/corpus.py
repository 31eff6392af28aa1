"""Corpus: the source text of the Python standard library, which every machine with Python has.

Files are taken in the order of their names, each ended by a zero byte, which no source holds.
A file is held out when the hash of its name says so (one in HELD_OUT), so the division is the
same everywhere and does not move when a file is added. Third-party packages and the library's
own tests are left out. Another version of Python has another text; `digest` tells them apart.
"""

import functools
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from planner.spec.documents import InputError

HELD_OUT = 20
LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test"})


@dataclass(frozen=True, slots=True)
class Corpus:
    """Bytes of both halves, uint8 [length], and what identifies them."""

    training: Tensor
    held_out: Tensor
    digest: str


def source_files() -> list[tuple[str, Path]]:
    """Name and path of every file, in order. Raises InputError where the library has no source."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = [(path.relative_to(root), path) for path in root.rglob("*.py")]
    kept = sorted((name.as_posix(), p) for name, p in found if not LEFT_OUT & set(name.parts))
    if not kept:
        raise InputError(
            f"{root}: holds no Python source, which this task reads; use a Python with its "
            f"standard library as text"
        )
    return kept


def is_held_out(name: str) -> bool:
    """Whether a file is kept for the metric."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT == 0


@functools.cache
def read() -> Corpus:
    """Both halves of the text; the first call reads the files."""
    halves = bytearray(), bytearray()
    digest = hashlib.blake2b(digest_size=16)
    for name, path in source_files():
        content = path.read_bytes() + b"\0"
        digest.update(name.encode() + b"\0" + content)
        halves[is_held_out(name)].extend(content)
    training, held_out = (torch.frombuffer(half, dtype=torch.uint8) for half in halves)
    return Corpus(training, held_out, digest.hexdigest())
