"""Transfers: one collective of torch.distributed on buffers made once.

In place, the part of this rank lies inside the full tensor, where all_gather finds and
reduce_scatter leaves it.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from profiler import stopwatch
from profiler.stopwatch import synchronize

# torch 2.13 renames these two and warns about the old names; torch 2.11 has only the old ones
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

WORK_WIDTH = 512
WORK_BYTES = 8 << 20
WORK_PRODUCTS = 2
"""Assumed: a few milliseconds of products and 8 MiB of memory, about what a layer does between two
collectives; chosen, not fitted, with the demo's tensor-parallel plans in view."""
HEAD_START_SECONDS = 2e-4
"""How long a sender waits, so that its receiver is already there."""
APART_SECONDS = 2e-3
"""How far apart the ranks of a group enter on a network; assumed: as ranks that share cores end
computing. Where all enter at once, gloo's words that ranks are ready may go before all data; where
one is late, its word goes behind its data, and the directions of a link take turns (measured: two
ranks at once take 9 to 18 ms for what one after another takes 18)."""


class Transfer:
    """One collective of `message_bytes` (the full tensor) among the ranks of a group.

    The message is rounded up to whole float32 elements, per rank where it is dealt out. burst: how
    many follow each other in one lap, timed on the device; 0: one, on the host's clock (see lap).
    """

    def __init__(
        self,
        op: str,
        group: Any,
        rank: int,
        ranks: int,
        message_bytes: int,
        device: str,
        in_place: bool = False,
        burst: int = 0,
    ):
        self.group, self.rank, self.ranks, self.device = group, rank, ranks, device
        self.peer = dist.get_global_rank(group, 1 - rank) if ranks == 2 else -1
        self.first = dist.get_global_rank(group, 0)
        share = max(1, -(-message_bytes // (4 * ranks)))
        dealt = op != "all_reduce"
        self.whole = torch.zeros(share * ranks if dealt else -(-message_bytes // 4), device=device)
        inside = in_place and op in ("all_gather", "reduce_scatter")
        own = self.whole[rank * share : (rank + 1) * share]
        self.part = own if inside else torch.zeros(share, device=device)
        self.burst = burst
        self.other = torch.zeros_like(self.whole) if op == "all_to_all" else self.part
        self.sends = op == "send_recv" and rank == 0
        self.begin: Callable[[bool], Any] = getattr(self, f"_{op}")
        self.square = torch.ones(WORK_WIDTH, WORK_WIDTH, device=device)
        self.scratch = torch.zeros(WORK_BYTES // 4, device=device)

    def compute(self) -> None:
        """Work as between two collectives of training: products, memory, and the message made.

        A collective right after a barrier finds awake threads and warm caches, and is up to
        twice as fast as one that ends some milliseconds of computing.
        """
        for _ in range(WORK_PRODUCTS):
            torch.mm(self.square, self.square)
        self.scratch.add_(1.0)
        self.whole.fill_(1.0)
        self.part.fill_(1.0)

    def run(self) -> None:
        """Run once; on a GPU the host does not wait."""
        self.begin(False)

    def lap(self) -> tuple[float, float]:
        """Run once; return its start and end on the machine's monotonic clock.

        With a burst: zero and the device's seconds of one. One that is not counted goes before,
        so that the streams of all ranks have met and no host's delay is in it.
        """
        if self.burst:
            return 0.0, self._device_seconds()
        synchronize(self.device)
        if self.sends:
            _spin(HEAD_START_SECONDS)
        start = time.perf_counter()
        self.run()
        synchronize(self.device)
        return start, time.perf_counter()

    def lap_at(self, moment: float, lap: int, lead_seconds: float) -> tuple[float, float]:
        """A lap that begins at a moment of the machine's clock, a receiver's so much earlier; the
        ranks of a group enter one after another, each lap another one last."""
        if self.begin != self._send_recv:
            until(moment - APART_SECONDS * ((self.rank + lap) % self.ranks) / (self.ranks - 1))
        else:
            until(moment if self.sends else moment - lead_seconds)
        start = time.perf_counter()
        self.run()
        return start, time.perf_counter()

    def _device_seconds(self) -> float:
        clock = stopwatch.clock(self.device)
        synchronize(self.device)
        self.run()
        clock.start()
        for _ in range(self.burst):
            self.run()
        clock.stop()
        return clock.laps()[0].seconds / self.burst

    def _all_reduce(self, later: bool) -> Any:
        return dist.all_reduce(self.whole, group=self.group, async_op=later)

    def _all_gather(self, later: bool) -> Any:
        return _all_gather(self.whole, self.part, group=self.group, async_op=later)

    def _reduce_scatter(self, later: bool) -> Any:
        return _reduce_scatter(self.part, self.whole, group=self.group, async_op=later)

    def _all_to_all(self, later: bool) -> Any:
        return dist.all_to_all_single(self.other, self.whole, group=self.group, async_op=later)

    def _broadcast(self, later: bool) -> Any:
        return dist.broadcast(self.whole, self.first, group=self.group, async_op=later)

    def _send_recv(self, later: bool) -> Any:
        sends = self.rank == 0
        if later:
            return (dist.isend if sends else dist.irecv)(self.whole, self.peer, group=self.group)
        return (dist.send if sends else dist.recv)(self.whole, self.peer, group=self.group)


class Idle:
    """The part of a rank that no group has."""

    def compute(self) -> None:
        """Nothing."""

    def lap(self) -> tuple[float, float]:
        """It takes no time."""
        return 0.0, 0.0

    def lap_at(self, moment: float, lap: int, lead_seconds: float) -> tuple[float, float]:
        """Nor does it later."""
        return moment, moment


def until(moment: float) -> None:
    """Sleep until a moment of the machine's monotonic clock: whoever waits awake takes a core from
    others that should come at the same moment."""
    time.sleep(max(0.0, moment - time.perf_counter()))


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
