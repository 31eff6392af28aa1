"""History: one line of JSON per step in DIR/history.jsonl, written by the first rank as it goes.

The file is what the progress bar reads, and what a training that is resumed takes its past from.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.spec import documents
from planner.spec.documents import InputError

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
    written when its writer died is left out. Raises InputError for a line that is no record."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    whole = (text for text in lines if text.endswith(b"\n"))
    return [_record(path, number, text) for number, text in enumerate(whole, start=1)]


def _record(path: Path, number: int, text: bytes) -> StepRecord:
    try:
        return StepRecord(**json.loads(text))
    except (ValueError, TypeError):  # not JSON, or other fields
        raise InputError(
            f"{path}, line {number}: no record of a step: {text[:40]!r}; remove the line, or move "
            f"the file away to go on without the losses so far"
        ) from None


def write(path: Path, records: Sequence[StepRecord]) -> None:
    """Begin a file with the records of an earlier start. Whoever dies meanwhile loses none."""
    documents.write_text(path, "".join(map(line, records)))


def append(path: Path, record: StepRecord) -> None:
    """Add a step. Raises InputError where it cannot be written."""
    try:
        with path.open("a") as stream:
            stream.write(line(record))
    except OSError as error:
        raise InputError(
            f"{path}: step {record.step} cannot be written: {error.strerror}; make room there, "
            f"then go on with --resume"
        ) from None
