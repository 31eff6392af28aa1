"""History: one line of JSON per step in DIR/history.jsonl, written by the first rank as it goes.

The file is what the progress bar reads, and what a training that is resumed takes its past from.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "history.jsonl"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step showed. gradient_norm: before clipping. seconds: wall time of the step."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float


def line(record: StepRecord) -> str:
    """A record as it stands in the file."""
    return json.dumps(dataclasses.asdict(record)) + "\n"


def read(path: Path) -> list[StepRecord]:
    """The whole records of a file, in order; none where it does not exist. A line that was being
    written when its writer died is left out."""
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [StepRecord(**json.loads(text)) for text in lines if text.endswith("\n")]


def write(path: Path, records: Sequence[StepRecord]) -> None:
    """Begin a file with the records of an earlier start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(map(line, records)))


def append(path: Path, record: StepRecord) -> None:
    """Add a step."""
    with path.open("a") as stream:
        stream.write(line(record))
