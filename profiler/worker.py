"""Worker: one process of a team (profiler.team), doing one task at a time.

`python -m profiler.worker SPEC` imports torch once and forks a child per rank; each child
reads tasks as JSON lines from its own pipe and answers on another. It ends when its pipe
closes, and is killed by the system when its parent dies.
"""

import contextlib
import ctypes
import datetime
import functools
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from profiler import interference, kinds, launch, stopwatch
from profiler.kinds import OperatorRequest
from profiler.layers import Reference, Stack
from profiler.machine import enter_network
from profiler.transfers import Idle, Transfer

ROTATING_BYTES = 64 << 20
ROTATING_BUFFERS = 8
HEATED_BYTES = 256 << 20
LEAST_ROUNDS = 3
MOST_WARM_ROUNDS = 8
FAULT_SECONDS = 5e-7
SPACED = 1.2
"""Agreed moments lie so many of the longest repeats apart, so that none meets the one before."""
PR_SET_PDEATHSIG = 1
GATE_TIMEOUT = datetime.timedelta(seconds=120)

Clocks = list[dict[str, stopwatch.Clock]]
"""One clock per operator and phase."""


class Worker:
    """One rank of a team."""

    def __init__(self, rank: int, size: int, device: str, store: str):
        self.rank, self.size, self.device = rank, size, device
        torch.set_num_threads(1)
        torch.manual_seed(rank)
        if device == "cuda":
            torch.cuda.set_device(rank % torch.cuda.device_count())
        if size > 1:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
                store=dist.FileStore(store, size),
                rank=rank,
                world_size=size,
                timeout=GATE_TIMEOUT,
            )
        self.token = torch.zeros(1)
        self.groups: dict[tuple[int, ...], Any] = {}
        self.heat = functools.cache(self._heat)

    def join(self, members: int, groups: list[list[int]]) -> None:
        """Make groups of ranks; all ranks of the team do so in the same order."""
        assert members == self.size, "a group is made by the whole team"
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        for ranks in groups:
            self.groups[tuple(ranks)] = dist.new_group(ranks, backend=backend, timeout=GATE_TIMEOUT)

    def _heat(self) -> None:
        """Touch memory once: pages that a virtual machine has never used come slowly."""
        if self.device == "cpu":
            torch.ones(HEATED_BYTES, dtype=torch.uint8)

    def gate(self, members: int) -> None:
        """Wait until the first `members` ranks are here."""
        if members > 1:
            dist.all_reduce(self.token, group=self.groups[tuple(range(members))])

    def operators(
        self, members: int, requests: list[tuple[str, dict[str, int], str]], seconds: float
    ) -> list[dict[str, list[stopwatch.Lap]]]:
        """Laps of the forward and backward of operators that take turns, as in a layer.

        First come those of an empty operator, then those asked for.
        """
        asked = [OperatorRequest(*request) for request in requests]
        fine = all(request.dtype != "tf32" for request in asked)
        torch.set_float32_matmul_precision("highest" if fine else "high")
        sets = [
            [
                kinds.prepare_empty(asked[0].dtype, self.device),
                *(kinds.prepare(request, self.device) for request in asked),
            ]
            for _ in range(rotation(asked))
        ]
        clocks = [_clocks(self.device) for _ in sets[0]]
        self._play(members, seconds, functools.partial(_round, sets), clocks)
        return [_laps(pair) for pair in clocks]

    def layers(
        self, members: int, reference: dict[str, Any], layers: int, seconds: float
    ) -> dict[str, list[stopwatch.Lap]]:
        """Laps of the forward and the backward of a stack of layers."""
        stack = Stack(Reference.model_validate(reference), layers, self.device)
        clocks = [_clocks(self.device)]
        self._play(members, seconds, functools.partial(_stack_round, stack), clocks)
        return _laps(clocks[0])

    def copy(self, members: int, size_bytes: int, seconds: float) -> list[stopwatch.Lap]:
        """Laps of a copy of `size_bytes` from one buffer to another."""
        source = torch.ones(size_bytes, dtype=torch.uint8, device=self.device)
        target = torch.zeros_like(source)
        clock = stopwatch.clock(self.device)
        target.copy_(source)
        self.gate(members)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not clock.laps():
            clock.start()
            target.copy_(source)
            clock.stop()
        return clock.laps()

    def collective(
        self,
        members: int,
        op: str,
        groups: list[list[int]],
        message_bytes: int,
        in_place: bool,
        burst: int,
        seconds: float,
        repeats: int,
        lead_seconds: float | None = None,
    ) -> list[tuple[float, float]]:
        """Start and end of every repeat on the clock that all processes of a machine share.

        lead_seconds: repeats begin at agreed moments, those of a receiver so much earlier.
        """
        transfer = self._transfer(op, groups, message_bytes, in_place, burst)
        everyone = functools.partial(self.gate, members)
        longest = self._most(members, max(self._timed(transfer, everyone) for _ in range(3)))
        count = min(60, max(repeats, int(seconds / longest)))
        if lead_seconds is None:
            return [self._lap(transfer, everyone) for _ in range(count)]
        period = SPACED * longest + lead_seconds
        begin = self._most(members, time.perf_counter()) + period
        return [transfer.lap_at(begin + lap * period, lap, lead_seconds) for lap in range(count)]

    def _most(self, members: int, value: float) -> float:
        """The largest of what the first `members` ranks have."""
        found = torch.tensor([value], dtype=torch.float64)
        if members > 1:
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.groups[tuple(range(members))])
        return float(found)

    def _transfer(
        self, op: str, groups: list[list[int]], size: int, in_place: bool = False, burst: int = 0
    ) -> Transfer | Idle:
        """This rank's part in a collective of the group that it belongs to."""
        own = next((ranks for ranks in groups if self.rank in ranks), None)
        if own is None:
            return Idle()
        place = own.index(self.rank), len(own)
        return Transfer(op, self.groups[tuple(own)], *place, size, self.device, in_place, burst)

    def overlap(
        self,
        members: int,
        op: str,
        groups: list[list[int]],
        message_bytes: int,
        request: tuple[str, dict[str, int], str],
        seconds: float,
    ) -> list[list[float]]:
        """Seconds of computing and of a collective alone, then of each beside the other."""
        transfer = self._transfer(op, groups, message_bytes)
        assert isinstance(transfer, Transfer), "overlaps leave no rank idle"
        work = kinds.prepare(OperatorRequest(*request), self.device)
        pair = interference.pair(work.run, transfer, self.device)
        everyone = functools.partial(self.gate, members)
        everyone()
        pair.alone()
        longest = torch.tensor(pair.needed(), dtype=torch.float64)
        dist.all_reduce(longest, dist.ReduceOp.MAX, group=self.groups[tuple(range(members))])
        return interference.repeat(pair, longest.tolist(), everyone, seconds)

    def launch(
        self, members: int, reference: dict[str, Any], layers: int, seconds: float
    ) -> dict[str, list[float]]:
        """Seconds of starting a tiny kernel, by device and host, and a tiny layer, by host."""
        stack = Stack(Reference.model_validate(reference), layers, self.device)
        self.gate(members)
        return launch.measure(stack, layers, self.device, seconds)

    def _timed(self, transfer: Transfer | Idle, everyone: Callable[[], None]) -> float:
        start, end = self._lap(transfer, everyone)
        return end - start

    def _lap(self, transfer: Transfer | Idle, everyone: Callable[[], None]) -> tuple[float, float]:
        everyone()
        transfer.compute()
        return transfer.lap()

    def _play(
        self, members: int, seconds: float, play: Callable[[Clocks], None], clocks: Clocks
    ) -> None:
        """Play rounds for `seconds`, all members from the same moment, after a warm-up."""
        self.heat()
        limit = time.perf_counter() + 5 * seconds + 1.0
        spare = [_clocks(self.device) for _ in clocks]
        self._warm_up(functools.partial(play, spare), time.perf_counter() + 3 * seconds)
        self.gate(members)
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < LEAST_ROUNDS or time.perf_counter() < end:
            play(clocks)
            rounds += 1
            if time.perf_counter() > limit:
                break

    def _warm_up(self, play: Callable[[], None], limit: float) -> None:
        """Play until the heap has grown to what the work needs; page faults tell when."""
        for played in range(MOST_WARM_ROUNDS):
            start, faults = time.perf_counter(), _faults()
            play()
            stopwatch.synchronize(self.device)
            end = time.perf_counter()
            settled = (_faults() - faults) * FAULT_SECONDS < 0.01 * (end - start)
            if (played and settled) or end > limit:
                break


def rotation(requests: list[OperatorRequest]) -> int:
    """How many sets of buffers to rotate over, so that they are as cold as in training."""
    whole = sum(kinds.footprint_bytes(request) for request in requests)
    return max(1, min(ROTATING_BUFFERS, math.ceil(ROTATING_BYTES / whole)))


def _laps(pair: dict[str, stopwatch.Clock]) -> dict[str, list[stopwatch.Lap]]:
    return {phase: clock.laps() for phase, clock in pair.items()}


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _clocks(device: str) -> dict[str, stopwatch.Clock]:
    return {"forward": stopwatch.clock(device), "backward": stopwatch.clock(device)}


def _round(sets: list[list[kinds.Work]], clocks: Clocks) -> None:
    """All forwards, then all backwards in reverse: the order of training."""
    for works in sets:
        for work, clock in zip(works, clocks, strict=True):
            work.before_forward()
            clock["forward"].start()
            work.forward()
            clock["forward"].stop()
    for works in reversed(sets):
        for work, clock in zip(reversed(works), reversed(clocks), strict=True):
            if work.has_backward:
                work.before_backward()
                clock["backward"].start()
                work.backward()
                clock["backward"].stop()
                work.after_backward()


def _stack_round(stack: Stack, clocks: Clocks) -> None:
    clock = clocks[0]
    stack.x.grad = None
    clock["forward"].start()
    output = stack.forward()
    clock["forward"].stop()
    clock["backward"].start()
    stack.backward(output)
    clock["backward"].stop()


def serve(worker: Worker, tasks: int, replies: int) -> None:
    """Answer tasks until the pipe closes."""
    names = ("join", "operators", "layers", "copy", "collective", "overlap", "launch")
    doers: dict[str, Callable[..., Any]] = {name: getattr(worker, name) for name in names}
    with os.fdopen(tasks) as lines, os.fdopen(replies, "w") as out:
        for line in lines:
            task = json.loads(line)
            reply = _answer(functools.partial(doers[task["task"]], **task["arguments"]))
            out.write(json.dumps(reply) + "\n")
            out.flush()


def _answer(doer: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": doer()}
    except Exception:  # whatever a task raises is told to who gave it; the worker goes on
        return {"error": traceback.format_exc(limit=-6)}


def die_with_parent() -> None:
    """Ask the system to kill this process when its parent dies (Linux; elsewhere the closed
    pipe ends it)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _child(rank: int, spec: dict[str, Any]) -> None:
    die_with_parent()
    pipes: list[list[int]] = spec["pipes"]
    for other, descriptors in enumerate(pipes):
        if other != rank:
            for descriptor in descriptors:
                os.close(descriptor)
    enter_network(rank)
    worker = Worker(rank, len(pipes), spec["device"], spec["store"])
    serve(worker, *pipes[rank])


def main() -> None:
    """Fork one child per rank; when one fails, end them all."""
    die_with_parent()
    spec = json.loads(sys.argv[1])
    for rank in range(len(spec["pipes"])):
        if os.fork() == 0:
            code = 1
            try:
                _child(rank, spec)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
    for descriptor in (end for pair in spec["pipes"] for end in pair):
        os.close(descriptor)
    for _ in spec["pipes"]:
        if os.wait()[1] != 0:
            # children die with this process
            os._exit(1)


if __name__ == "__main__":
    main()
