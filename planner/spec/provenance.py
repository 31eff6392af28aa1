"""Where a number comes from: measured, fitted or assumed, and by what."""

import datetime
from typing import Any, Literal

import pydantic

from planner.spec.documents import Frozen

Birth = Literal["measured", "fitted", "assumed"]


class Provenance(Frozen):
    """The birth certificate of a number or a table of numbers.

    birth: measured on a machine, fitted to measurements, or assumed from a document.
    source: the command, the data set or the document it comes from.
    """

    birth: Birth
    source: str
    date: str | None = None

    @pydantic.field_validator("date", mode="before")
    @classmethod
    def _read_date(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime.date) else value


class Shares(Frozen):
    """Which share of a predicted time rests on each kind of number (they sum to one)."""

    measured: float = 0.0
    fitted: float = 0.0
    assumed: float = 0.0
