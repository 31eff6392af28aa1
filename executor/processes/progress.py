"""Progress: what every rank is doing, in one small file that all ranks and the launcher map.

Each rank owns a record of 64 bytes: the time of its last mark and what it began then. Writing
one costs about a microsecond and no system call, so a rank marks every action; a launcher that
finds silence reads who stopped where.
"""

import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

RECORD = struct.Struct("d56s")

STARTING = "starting"
STARTING_SECONDS = 60.0
"""How long ranks may be silent until all have met and built their part of the model, if no longer
time-out is given: importing torch takes 2 s on an idle machine, and took 10 on a busy one."""
MEETING = "meeting the other ranks"
BUILDING = "building the model"


@dataclass(frozen=True, slots=True)
class Mark:
    """The last thing a rank began: at_seconds of the monotonic clock (0: nothing yet)."""

    at_seconds: float
    doing: str

    @property
    def starting(self) -> bool:
        """Whether the rank is not ready to work yet."""
        return self.doing in ("", MEETING, BUILDING)


def create(path: Path, ranks: int) -> None:
    """Make the file, with nothing begun."""
    path.write_bytes(bytes(RECORD.size * ranks))


def read(path: Path, ranks: int) -> list[Mark]:
    """The last mark of every rank."""
    content = path.read_bytes()
    records = (RECORD.unpack_from(content, RECORD.size * rank) for rank in range(ranks))
    return [Mark(at, text.rstrip(b"\0").decode(errors="replace")) for at, text in records]


class Progress:
    """One rank's side. Without a file (under torchrun) marks go nowhere."""

    def __init__(self, path: Path | None, rank: int):
        self._offset = RECORD.size * rank
        self._map: mmap.mmap | None = None
        self.prefix = ""
        if path is not None:
            with path.open("r+b") as stream:
                self._map = mmap.mmap(stream.fileno(), 0)

    def mark(self, doing: str) -> None:
        """Note that the rank begins something (at most 56 bytes are kept)."""
        if self._map is not None:
            text = (self.prefix + doing).encode()
            RECORD.pack_into(self._map, self._offset, time.perf_counter(), text)
