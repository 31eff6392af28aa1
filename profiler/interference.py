"""Interference: computing and a collective at once, in one worker.

    C, X      seconds of the computing and of the collective, each alone
    C', X'    of the same, begun together; the computing is repeated until it lasts COVER * X

so the whole collective is hidden behind the computing. (C' - C) / X is what the cost model calls
overlap_slowdown: seconds that compute loses per second of a hidden collective. X' / X is what the
collective loses. A round takes all of them in turn, so that a drift of the machine favours none.

On a GPU both are on streams of their own and events tell: the collective's stream waits for the
start of the computing, the computing's stream never for the collective. On a CPU gloo's thread
runs the collective (async_op) beside the computing of this one, and a thread that waits for it
tells its end (gloo's reduce_scatter has no future, in torch 2.11 as in 2.13). Wall time counts,
since sharing the cores is what interferes. Left out: what is queued behind both.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from profiler.transfers import Transfer

COVER = 2.0
"""Assumed: computing that long hides a collective that is slowed to half its speed."""
TRIES = 3
MOST_REPEATS = 400
LEAST_ROUNDS, MOST_ROUNDS = 5, 40

Work = Callable[[], object]


class Pair(Protocol):
    """Computing and a collective that can run alone or together."""

    def compute(self, count: int) -> float:
        """Seconds of the computing, `count` times, alone."""

    def collective(self) -> float:
        """Seconds of the collective alone."""

    def both(self, count: int) -> tuple[float, float]:
        """Seconds of each, begun together."""

    def alone(self) -> None:
        """Warm up."""

    def needed(self) -> list[float]:
        """Seconds of one computing and of the collective, each alone."""


class CpuPair:
    """On a CPU: gloo's thread beside this one."""

    def __init__(self, work: Work, transfer: Transfer):
        self.work, self.transfer = work, transfer
        self.watcher = ThreadPoolExecutor(1)

    def compute(self, count: int) -> float:
        """Seconds of the computing, `count` times, alone."""
        start = time.perf_counter()
        for _ in range(count):
            self.work()
        return time.perf_counter() - start

    def collective(self) -> float:
        """Seconds of the collective alone."""
        return self.both(0)[1]

    def both(self, count: int) -> tuple[float, float]:
        """Seconds of each, begun together."""
        start = time.perf_counter()
        pending = self.transfer.begin(True)
        end = self.watcher.submit(_end_of, pending)
        computed = self.compute(count)
        return computed, end.result() - start

    def alone(self) -> None:
        """Warm up."""
        self.compute(1)
        self.collective()

    def needed(self) -> list[float]:
        """Seconds of one computing and of the collective, each alone."""
        return [self.compute(4) / 4, min(self.collective() for _ in range(TRIES))]


class CudaPair:
    """On a GPU: two streams and their events."""

    def __init__(self, work: Work, transfer: Transfer):
        self.work, self.transfer = work, transfer
        self.side = torch.cuda.Stream()

    def compute(self, count: int) -> float:
        """Seconds of the computing, `count` times, alone."""
        return self._timed(count, sends=False)[0]

    def collective(self) -> float:
        """Seconds of the collective alone."""
        return self._timed(0, sends=True)[1]

    def both(self, count: int) -> tuple[float, float]:
        """Seconds of each, begun together."""
        return self._timed(count, sends=True)

    def _timed(self, count: int, sends: bool) -> tuple[float, float]:
        start, computed, sent = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        torch.cuda.synchronize()
        start.record()
        if sends:
            self._send(start, sent)
        for _ in range(count):
            self.work()
        computed.record()
        torch.cuda.synchronize()
        return _between(start, computed), _between(start, sent) if sends else 0.0

    def _send(self, start: Any, sent: Any) -> None:
        with torch.cuda.stream(self.side):
            self.side.wait_event(start)
            # the wait is one of streams: the host goes on
            self.transfer.begin(True).wait()
            sent.record(self.side)

    def alone(self) -> None:
        """Warm up."""
        self.compute(3)
        self.collective()

    def needed(self) -> list[float]:
        """Seconds of one computing and of the collective, each alone."""
        return [self.compute(8) / 8, min(self.collective() for _ in range(TRIES))]


def _end_of(pending: Any) -> float:
    pending.wait()
    return time.perf_counter()


def _between(start: Any, end: Any) -> float:
    return max(float(start.elapsed_time(end)) / 1e3, 1e-9)


def pair(work: Work, transfer: Transfer, device: str) -> Pair:
    """Computing and a collective on a device kind, "cpu" or "cuda"."""
    return CudaPair(work, transfer) if device == "cuda" else CpuPair(work, transfer)


def repeat(
    of: Pair, longest: Sequence[float], everyone: Callable[[], None], seconds: float
) -> list[list[float]]:
    """Rounds of [C, X, C', X'] for about `seconds`.

    longest: seconds of one computing and of the collective on the slowest rank, the same on all
    ranks, as must be the number of rounds. everyone: waits until all ranks are here.
    """
    one, sent = longest
    count = max(1, min(MOST_REPEATS, round(COVER * sent / one + 0.5)))
    lasts = 2 * count * one + 2 * sent
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(seconds / lasts)))
    return [_round(of, count, everyone) for _ in range(rounds)]


def _round(of: Pair, count: int, everyone: Callable[[], None]) -> list[float]:
    everyone()
    computing = of.compute(count)
    everyone()
    sending = of.collective()
    everyone()
    return [computing, sending, *of.both(count)]
