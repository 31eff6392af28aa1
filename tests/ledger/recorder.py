"""Records the forward and the backward of a program."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from executor.alone.sent import Recorder, Sent, exchanged


def record(
    axes: Mapping[str, Any], forward: Callable[[], Tensor], after: Callable[[], None] | None = None
) -> list[Sent]:
    """What a step sends: forward, backward of the sum, then `after` (as part of the backward)."""
    with Recorder(axes) as recorder:
        forward().sum().backward()
        recorder.phase = "backward"
        if after is not None:
            after()
    return exchanged(recorder.sent)
