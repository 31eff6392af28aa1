"""Recorder: the spans of one step, one per action, named as the action prints itself.

On a CPU a mark is the monotonic clock, which all processes of a machine share; on CUDA it is an
event in the stream, so recording never waits for the device.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from planner.schedule.action import COMPUTE, Action, Kind
from planner.spec.timeline import Stream

RawSpan = tuple[str, Stream, float, float]
"""Name, stream, start and end in seconds of the machine's monotonic clock."""


class CpuClock:
    """Marks are seconds."""

    def mark(self) -> Any:
        """Now."""
        return time.perf_counter()

    def settle(self) -> None:
        """Nothing to wait for."""

    def seconds(self, mark: Any) -> float:
        """The mark on the machine's clock."""
        return float(mark)


class CudaClock:
    """Marks are events; the first one after a synchronisation ties them to the host's clock."""

    def __init__(self) -> None:
        self._origin: Any = None
        self._origin_seconds = 0.0

    def mark(self) -> Any:
        """An event in the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        if self._origin is None:
            self._origin, self._origin_seconds = event, time.perf_counter()
        return event

    def settle(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()

    def seconds(self, mark: Any) -> float:
        """The mark on the machine's clock; call settle() first."""
        return self._origin_seconds + float(self._origin.elapsed_time(mark)) * 1e-3


Clock = CpuClock | CudaClock


def make_clock(device: torch.device) -> Clock:
    """The clock of a device, for one step that starts now."""
    return CudaClock() if device.type == "cuda" else CpuClock()


def stream_of(action: Action) -> Stream:
    """The stream that an action runs in."""
    if action.kind in COMPUTE:
        return "compute"
    if action.kind == Kind.REDUCE_GRADIENT:
        return "dp"
    return "optimizer" if action.kind == Kind.OPTIMIZER else "pp"


class Recorder:
    """Observes a step and keeps a span per action."""

    def __init__(self, clock: Clock, progress: Callable[[str], None]):
        self._clock, self._progress = clock, progress
        self._marks: list[tuple[Action, Any, Any]] = []
        self._start: Any = None

    def before(self, action: Action) -> None:
        """Mark the start."""
        self._progress(str(action))
        self._start = self._clock.mark()

    def after(self, action: Action) -> None:
        """Mark the end."""
        self._marks.append((action, self._start, self._clock.mark()))

    def spans(self) -> list[RawSpan]:
        """The spans of the step; waits for the device."""
        seconds = self._clock.seconds
        return [(str(a), stream_of(a), seconds(x), seconds(y)) for a, x, y in self._marks]
