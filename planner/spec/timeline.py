"""Timeline: spans and memory over one step, predicted or measured; one type for both.

Spans carry the action's name (`2F0`: stage 2, forward, microbatch 0), so that comparing a
prediction with a measurement is a join on (rank, name).
"""

from typing import Literal, Self

import pydantic

from planner.spec.documents import Document, Frozen

Stream = Literal["compute", "tp", "pp", "dp", "optimizer"]


class Span(Frozen):
    """One action on one rank, from start to end, in seconds since the step began."""

    rank: int = pydantic.Field(ge=0)
    stream: Stream
    name: str
    start_seconds: float = pydantic.Field(ge=0)
    end_seconds: float = pydantic.Field(ge=0)

    @pydantic.model_validator(mode="after")
    def _forward_in_time(self) -> Self:
        if self.end_seconds < self.start_seconds:
            raise ValueError(
                f"{self.name} ends at {self.end_seconds}, before it starts at {self.start_seconds}"
            )
        return self

    @property
    def seconds(self) -> float:
        """How long the span lasts."""
        return self.end_seconds - self.start_seconds


class MemoryPoint(Frozen):
    """Bytes held by one rank at one moment of the step."""

    rank: int = pydantic.Field(ge=0)
    at_seconds: float = pydantic.Field(ge=0)
    held_bytes: float = pydantic.Field(ge=0)


class Timeline(Document):
    """One step. peak_bytes by rank; capacity_bytes of one device, for the line in figures."""

    SCHEMA = "timeline/1"

    kind: Literal["predicted", "measured"]
    title: str
    ranks: int = pydantic.Field(ge=1)
    step_seconds: float = pydantic.Field(gt=0)
    spans: tuple[Span, ...]
    memory: tuple[MemoryPoint, ...] = ()
    peak_bytes: dict[int, float] = {}
    capacity_bytes: float | None = None
