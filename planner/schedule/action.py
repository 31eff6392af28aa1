"""Action: one thing a rank does with one stage and one microbatch, printed as `2F0`.

The notation is that of torch.distributed.pipelining: stage, kind, microbatch. Actions that
concern a whole stage (`2UNSHARD`, `2REDUCE_GRAD`, `2OPTIMIZER`) have no microbatch.
`Action.parse(str(action)) == action`.
"""

import enum
import re
from dataclasses import dataclass
from typing import Self


class Kind(enum.StrEnum):
    """What an action does."""

    FORWARD = "F"
    BACKWARD = "B"
    INPUT_GRADIENT = "I"
    WEIGHT_GRADIENT = "W"
    SEND_FORWARD = "SEND_F"
    RECEIVE_FORWARD = "RECV_F"
    SEND_BACKWARD = "SEND_B"
    RECEIVE_BACKWARD = "RECV_B"
    UNSHARD = "UNSHARD"
    RESHARD = "RESHARD"
    REDUCE_GRADIENT = "REDUCE_GRAD"
    OPTIMIZER = "OPTIMIZER"


COMPUTE_KINDS = (Kind.FORWARD, Kind.BACKWARD, Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT)
FORWARD, BACKWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(4)
"""Indices into COMPUTE_KINDS, as the arrays of planner.schedule.orders hold them."""

COMPUTE = frozenset(COMPUTE_KINDS)
SENDS = frozenset({Kind.SEND_FORWARD, Kind.SEND_BACKWARD})
RECEIVES = frozenset({Kind.RECEIVE_FORWARD, Kind.RECEIVE_BACKWARD})
WHOLE_STAGE = frozenset({Kind.UNSHARD, Kind.RESHARD, Kind.REDUCE_GRADIENT, Kind.OPTIMIZER})

_PATTERN = re.compile(r"(\d+)(" + "|".join(sorted(Kind, key=len, reverse=True)) + r")(\d*)$")


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """Stage index, kind, and microbatch index (None for actions of a whole stage)."""

    stage: int
    kind: Kind
    microbatch: int | None = None

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{'' if self.microbatch is None else self.microbatch}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2F0`. Raises ValueError that shows the notation."""
        match = _PATTERN.match(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not an action; write stage, kind, microbatch: 2F0")
        kind, microbatch = Kind(match[2]), match[3]
        if (kind in WHOLE_STAGE) == bool(microbatch):
            needs = "no microbatch" if kind in WHOLE_STAGE else "a microbatch"
            raise ValueError(f"{text!r}: {kind} takes {needs}")
        return cls(int(match[1]), kind, int(microbatch) if microbatch else None)


Order = tuple[Action, ...]
"""What one rank does, in order."""

Grid = tuple[Order, ...]
"""One order per pipeline rank. A rank holds the stages that its order names."""
