"""Record: what a checkpoint is of, in its checkpoint.json, written last."""

import pydantic

from planner.spec.documents import Document
from planner.spec.model import ModelSpec


class Record(Document):
    """One checkpoint: taken before step `step`. file_bytes: the size of every other file."""

    SCHEMA = "checkpoint/1"

    step: int = pydantic.Field(ge=1)
    task: str
    data: str
    model: ModelSpec
    seq_len: int
    global_batch: int
    seed: int
    layout: str
    file_bytes: dict[str, int]
