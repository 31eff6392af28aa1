"""Emulation: the program of one rank of a large plan on one device, its messages replaced by waits.

    meshwright run plan.json --emulate-rank r

The kernels run, with the rank's own shapes and in the rank's own order, so compute time and peak
memory are true ones; every collective waits as long as it is predicted to take and moves nothing
(planner.spec.ledger). What the rank would wait for its neighbours (bubbles, slower ranks) is not
there, and copies of tokens go to the experts in turn:

    step = compute + waits          waits = sum of predicted seconds of the rank's messages

A torch process group in Python stands for every group. On a CPU a wait sleeps, and spins for the
last moments; on CUDA it is a kernel that does nothing for so many cycles, in the current stream,
so the host runs ahead as with NCCL. Received tensors hold whatever was in memory before, so losses
mean nothing; all weights are alike.
"""

import datetime
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from executor import refusals
from executor.alone.ledger import named_groups
from executor.formats import set_matrix_units
from executor.options import RunOptions
from executor.parallel.mesh import Mesh, make_mesh
from executor.processes.progress import Progress
from executor.train import Trainer, measured
from executor.transformer.experts import route_evenly
from planner.spec import runnable
from planner.spec.cluster import Backend
from planner.spec.ledger import Ledger
from planner.spec.measured import Measured
from planner.spec.plan import Plan
from profiler.machine import describe

BACKEND = "emulated"
TIMEOUT = datetime.timedelta(seconds=60)
SPIN_SECONDS = 2e-4
"""Assumed: a sleep may end so much late."""
CALIBRATION_CYCLES = 50_000_000
"""Assumed: tens of milliseconds, long enough for the resolution of an event."""

BARRIER_BYTES = 4
"""What executor.parallel.collectives.barrier sends, before a step begins."""

Waits = dict[tuple[str, int], float]
"""Seconds by collective and bytes of the full tensor."""


class Waiter:
    """Lets time pass on a device. waited_seconds: so far."""

    def __init__(self, device: torch.device):
        self.waited_seconds = 0.0
        self._cycles = _cycles_per_second() if device.type == "cuda" else None

    def wait(self, seconds: float) -> None:
        """Nothing for so long."""
        self.waited_seconds += seconds
        if self._cycles is not None:
            torch.cuda._sleep(int(seconds * self._cycles))
            return
        end = time.perf_counter() + seconds
        if seconds > SPIN_SECONDS:
            time.sleep(seconds - SPIN_SECONDS)
        while time.perf_counter() < end:
            pass


def _cycles_per_second() -> float:
    """Of the device's own clock under a kernel that waits."""
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(CALIBRATION_CYCLES)
    begun.record()
    torch.cuda._sleep(CALIBRATION_CYCLES)
    ended.record()
    torch.cuda.synchronize()
    return CALIBRATION_CYCLES / (float(begun.elapsed_time(ended)) * 1e-3)


class Done:
    """A message that has arrived."""

    def wait(self, timeout: Any = None) -> bool:
        """At once."""
        return True

    def is_completed(self) -> bool:
        """Always."""
        return True


class Group(dist.ProcessGroup):
    """A group whose other ranks do not exist. waits: what its messages take, once there is a
    waiter. A message that was not predicted is our mistake."""

    def __init__(self, rank: int, size: int):
        super().__init__(rank, size)
        self._size = size
        self.waiter: Waiter | None = None
        self.waits: Waits = {}

    def size(self) -> int:
        """Ranks of the group."""
        return self._size

    def getBackendName(self) -> str:  # noqa: N802  torch calls it
        """What torch prints."""
        return BACKEND

    def _pass(self, op: str, size_bytes: int) -> Done:
        if self.waiter is not None:
            key = op, size_bytes
            assert key in self.waits, f"{op} of {size_bytes} bytes was not predicted"
            self.waiter.wait(self.waits[key])
        return Done()

    def allreduce(self, tensors: list[Tensor], options: Any = None) -> Done:
        """Sum or maximum in place."""
        return self._pass("all_reduce", tensors[0].nbytes)

    def all_gather_single(self, output: Tensor, part: Tensor, options: Any = None) -> Done:
        """Parts into a whole."""
        return self._pass("all_gather", output.nbytes)

    def reduce_scatter_single(self, part: Tensor, whole: Tensor, options: Any = None) -> Done:
        """Sums into parts."""
        return self._pass("reduce_scatter", whole.nbytes)

    def all_to_all_single(
        self,
        output: Tensor,
        whole: Tensor,
        received: list[int],
        sent: list[int],
        options: Any = None,
    ) -> Done:
        """Parts for parts."""
        return self._pass("all_to_all", whole.nbytes)

    # the names that torch 2.11 calls
    alltoall_base = all_to_all_single
    _allgather_base = all_gather_single
    _reduce_scatter_base = reduce_scatter_single

    def send(self, tensors: list[Tensor], target: int, tag: int) -> Done:
        """To one rank."""
        return self._pass("send", tensors[0].nbytes)

    def recv(self, tensors: list[Tensor], source: int, tag: int) -> Done:
        """From one rank."""
        return self._pass("recv", tensors[0].nbytes)


def _create(store: Any, rank: int, size: int, timeout: Any) -> Group:
    return Group(rank, size)


dist.Backend.register_backend(BACKEND, _create, devices=["cpu", "cuda"])


def emulate(plan: Plan, rank: int, foreseen: Ledger, options: RunOptions) -> Measured:
    """Run one rank of a plan alone on this machine. foreseen: its messages with their seconds.

    Raises InputError for a plan or rank that cannot be run, or not on this machine.
    """
    refusals.check(plan)
    plan.check_rank(rank)
    machine = describe()
    refusals.check_one(rank, machine, foreseen.peak_bytes)
    device = torch.device(machine.kind)
    set_matrix_units(plan.workload.dtype)
    if device.type == "cpu":
        torch.set_num_threads(1)
    dist.init_process_group(
        BACKEND, rank=rank, world_size=plan.layout.devices, store=FakeStore(), timeout=TIMEOUT
    )
    try:
        mesh = make_mesh(plan.layout, rank, BACKEND, TIMEOUT, bool(runnable.experts(plan.model)))
        assert mesh is not None
        waiter = Waiter(device)
        trainer = Trainer(plan, mesh, device, options, Progress(None, rank), same_weights=False)
        route_evenly(trainer.share.model)
        _foresee(mesh, foreseen, waiter)
        result = trainer.train()
        # of memory that nobody has written
        result.norms = [0.0] * len(result.norms)
        result.losses = [0.0] * len(result.losses)
    finally:
        dist.destroy_process_group()
    backend: Backend = "nccl" if device.type == "cuda" else "gloo"
    found = measured(plan, [result], options, machine, backend)
    rounds = options.warmup + options.steps + 1
    return found.replace(
        emulated_rank=rank,
        waited_seconds=waiter.waited_seconds / rounds,
        world_size=plan.layout.devices,
        loss=(),
        gradient_norm=(),
    )


def _foresee(mesh: Mesh, foreseen: Ledger, waiter: Waiter) -> None:
    """Tell every group what its messages take."""
    for name, group in named_groups(mesh):
        if group is not None:
            group.waiter, group.waits = waiter, dict(_waits(foreseen, name.split()[0]))
    if mesh.everyone is not None:
        mesh.everyone.waits["all_reduce", BARRIER_BYTES] = 0.0


def _waits(foreseen: Ledger, group: str) -> Iterator[tuple[tuple[str, int], float]]:
    for message in foreseen.messages:
        if message.group != group:
            continue
        size, seconds = message.message_bytes, message.seconds
        assert seconds is not None, "a recorded ledger foresees nothing"
        if message.op == "send_recv":  # a ring sends and receives at once
            yield ("send", size), 0.0
            yield ("recv", size), seconds
        else:
            yield (message.op, size), seconds
