"""Stopwatch: times of repeated work, with their spread.

A lap is one timed call. On a CPU it has wall time and the CPU time of the whole process: wall
beyond CPU is time off the core (another process, waiting). On CUDA the wall time of a lap is
the time between two events on the current stream, and CPU time is what the host spent.

Reported are the median and (third quartile - first quartile) / median: both ignore the few laps
that an interrupt or another process hit.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import torch


class Lap(NamedTuple):
    """One timed call: wall seconds and CPU seconds of this process."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Median seconds of `repeats` laps, their relative spread, and the median CPU seconds."""

    seconds: float
    spread: float
    repeats: int
    cpu_seconds: float

    @classmethod
    def of(cls, laps: Sequence[Lap]) -> Self:
        """Sum up laps. `laps` must not be empty."""
        assert laps, "a timing needs at least one lap"
        walls = [lap.seconds for lap in laps]
        cpu = statistics.median(lap.cpu_seconds for lap in laps)
        return cls(statistics.median(walls), spread(walls), len(walls), cpu)


def compute_timing(laps: Sequence[Lap], device: str) -> Timing:
    """Sum up laps of pure computation in one thread.

    On a CPU such work never waits, so its CPU time is what it takes on a core of its own, and
    wall time beyond it belongs to other processes. On CUDA the events tell.
    """
    if device != "cpu":
        return Timing.of(laps)
    return Timing.of([Lap(max(lap.cpu_seconds, 1e-9), lap.cpu_seconds) for lap in laps])


def spread(values: Sequence[float]) -> float:
    """Interquartile range over the median; zero for fewer than two values or a zero median."""
    middle = statistics.median(values)
    if len(values) < 2 or middle <= 0:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / middle


class Clock(Protocol):
    """Takes laps: start(), the work, stop()."""

    def start(self) -> None:
        """Begin a lap."""

    def stop(self) -> None:
        """End the lap begun last."""

    def laps(self) -> list[Lap]:
        """All laps so far, oldest first. On CUDA waits for the device."""


class CpuClock:
    """Laps by the monotonic clock and the process's CPU clock."""

    def __init__(self) -> None:
        self._laps: list[Lap] = []

    def start(self) -> None:
        """Begin a lap."""
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> None:
        """End the lap begun last."""
        wall = time.perf_counter() - self._wall
        # the clocks tick in nanoseconds; a lap of nothing still took some time
        self._laps.append(Lap(max(wall, 1e-9), time.process_time() - self._cpu))

    def laps(self) -> list[Lap]:
        """All laps so far, oldest first."""
        return list(self._laps)


class CudaClock:
    """Laps by pairs of CUDA events on the current stream."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Any, Any, float]] = []

    def start(self) -> None:
        """Begin a lap."""
        self._cpu = time.process_time()
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def stop(self) -> None:
        """End the lap begun last."""
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        self._pairs.append((self._event, end, time.process_time() - self._cpu))

    def laps(self) -> list[Lap]:
        """All laps so far, oldest first; waits for the device."""
        torch.cuda.synchronize()
        return [
            Lap(max(start.elapsed_time(end) / 1e3, 1e-9), cpu) for start, end, cpu in self._pairs
        ]


def clock(device: str = "cpu") -> Clock:
    """The clock of a device kind, "cpu" or "cuda"."""
    return CudaClock() if device == "cuda" else CpuClock()


def synchronize(device: str) -> None:
    """Wait until the device has done all its work; nothing to wait for on a CPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(
    work: Callable[[], object],
    prepare: Callable[[], object] | None = None,
    *,
    warmup: int = 3,
    repeats: int = 10,
    seconds: float = 0.2,
    limit_seconds: float = 10.0,
    device: str = "cpu",
) -> Timing:
    """Time `work`, each lap after an untimed `prepare`.

    Runs `warmup` untimed rounds, then laps until there are `repeats` of them and `seconds` have
    passed; stops at `limit_seconds` (warm-up included) with at least one lap.
    """
    begin = time.perf_counter()
    before = prepare or _nothing
    for _ in range(warmup):
        before()
        work()
        synchronize(device)
        if time.perf_counter() - begin > limit_seconds / 2:
            break
    watch, start, count = clock(device), time.perf_counter(), 0
    while not count or not _done(count, repeats, time.perf_counter() - start, seconds):
        before()
        watch.start()
        work()
        watch.stop()
        count += 1
        if time.perf_counter() - begin > limit_seconds:
            break
    return Timing.of(watch.laps())


def _done(count: int, repeats: int, elapsed: float, seconds: float) -> bool:
    return count >= repeats and elapsed >= seconds


def _nothing() -> None:
    pass
