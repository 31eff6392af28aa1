"""Asked: the question behind a plan, so that whoever judges it later applies the same wishes."""

from typing import Literal

import pydantic

from planner.spec.documents import Frozen

Objective = Literal["time", "cost", "devices"]


class Asked(Frozen):
    """What a plan was searched for.

    throughput: tokens per second that the fewest devices had to reach (objective devices).
    limit_bytes: memory of a device that it might use. memory_limit, memory_headroom: the user's
    words for it; without them a share of the device (planner.spec.plan.AT_RISK), or all of it
    where nothing else fits. fix, forbid: `key=value` that it had to have, or not to have.
    """

    objective: Objective = "time"
    throughput: float | None = pydantic.Field(default=None, gt=0)
    limit_bytes: float = pydantic.Field(gt=0)
    memory_limit: str | None = None
    memory_headroom: str | None = None
    fix: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
