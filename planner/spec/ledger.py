"""Ledger: what one rank sends in a step, and the most memory that it holds; predicted or recorded.

Two ledgers of the same rank are compared line by line: a line is a kind of message, and the count
of its equals is a number that must agree exactly.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import pydantic

from planner.spec.documents import Document, Frozen
from planner.spec.profile import CollectiveOp

Part = Literal["forward", "backward", "pipeline", "gradients", "optimizer"]
"""Where in a step a message is sent: in an F; in a B, I or W; between stages; in the reduction of
gradients; in the update."""

PARTS: tuple[Part, ...] = ("forward", "backward", "pipeline", "gradients", "optimizer")
"""In the order of a step."""

MessageOp = CollectiveOp | Literal["send", "recv"]
Group = Literal["tp", "cp", "ep", "etp", "dp", "pp", "edp", "replicas", "tied", "everyone"]
"""Ranks that take part: those that differ on an axis only; `pp` those of a pipeline, `tied` its two
ends, `edp` those that hold the same experts, `replicas` the copies that hybrid sharding leaves."""

Line = tuple[Part, MessageOp, Group, int, int]
"""Part, collective, group, ranks, bytes."""


class Message(Frozen):
    """Equal messages of one rank in one step.

    message_bytes: of the full tensor (all_gather: its output, reduce_scatter: its input).
    seconds: of one of them, predicted.
    """

    part: Part
    op: MessageOp
    group: Group
    ranks: int = pydantic.Field(ge=2)
    message_bytes: int = pydantic.Field(ge=0)
    count: int = pydantic.Field(ge=1)
    seconds: float | None = None

    @property
    def line(self) -> Line:
        """What distinguishes it."""
        return self.part, self.op, self.group, self.ranks, self.message_bytes


class Ledger(Document):
    """All messages of one rank in one step. peak_bytes: the most it holds at once."""

    SCHEMA = "ledger/1"

    kind: Literal["predicted", "recorded"]
    title: str
    rank: int = pydantic.Field(ge=0)
    messages: tuple[Message, ...]
    peak_bytes: float = pydantic.Field(ge=0)

    def counts(self) -> Counter[Line]:
        """How many messages of each line there are."""
        found: Counter[Line] = Counter()
        for message in self.messages:
            found[message.line] += message.count
        return found


def both(predicted: Ledger, recorded: Ledger) -> Iterator[tuple[Line, int, int]]:
    """Every line of either, with its two counts, in the order of a step."""
    ahead, seen = predicted.counts(), recorded.counts()
    for line in sorted(ahead | seen, key=lambda each: (PARTS.index(each[0]), *each[1:])):
        yield line, ahead[line], seen[line]
