"""Train: the steps of one rank, and the results of all ranks as one Measured.

Each step: make the batch, barrier, start the clock, run the actions, wait for the device, stop
the clock. A rank's step time runs from its exit of the barrier to its end; the step's is the
slowest rank's. After the timed steps one more step counts memory, so that counting disturbs no
clock; its loss is not reported.
"""

import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from executor import data
from executor.adapted.alike import check_alike
from executor.adapted.source import build
from executor.apply import Share, apply
from executor.memory import AllocatorMeter, MemoryObserver, RawMemory, StorageMeter
from executor.options import RunOptions
from executor.parallel.collectives import barrier
from executor.parallel.mesh import Mesh
from executor.processes.progress import Progress
from executor.recorder import RawSpan, Recorder, make_clock
from executor.runner import Runner
from executor.transformer.head import loss_is_shared
from planner.spec.cluster import Backend
from planner.spec.measured import Measured, StepTimes
from planner.spec.plan import Plan
from planner.spec.profile import Machine
from planner.spec.timeline import MemoryPoint, Span, Timeline


@dataclass(slots=True)
class RankResult:
    """What one rank saw. Lists hold one entry per step, warm-up included.

    losses: the rank's share of the loss; they sum to the loss over the ranks with counts_loss.
    starts, ends: of the step, seconds of the machine's monotonic clock.
    """

    rank: int
    counts_loss: bool
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    spans: list[list[RawSpan]] = field(default_factory=list)
    memory: list[RawMemory] = field(default_factory=list)
    resident_bytes: float = 0.0


class Trainer:
    """Runs the steps of one rank. same_weights: those that every plan starts from."""

    def __init__(
        self,
        plan: Plan,
        mesh: Mesh,
        device: torch.device,
        options: RunOptions,
        progress: Progress,
        same_weights: bool = True,
    ):
        progress.mark("building the model")
        self.plan, self.mesh, self.device = plan, mesh, device
        self.options, self.progress = options, progress
        module = None
        if options.module is not None:
            module = build(options.module, options.seed)
            check_alike(module, mesh.everyone, device)
        seed = options.seed if same_weights else None
        self.share: Share = apply(
            plan, mesh, device, seed, options.learning_rate, options.clip_norm, module
        )
        self.runner = Runner(plan, mesh, self.share, device)

    def train(self) -> RankResult:
        """All steps, then the one that counts memory."""
        result = RankResult(self.mesh.rank, self._counts_loss())
        for step in range(self.options.warmup + self.options.steps):
            self._timed_step(step, result)
        result.resident_bytes = resident_bytes()
        result.memory = self._memory_step(self.options.warmup + self.options.steps)
        return result

    def _counts_loss(self) -> bool:
        return counts_loss(self.plan, self.mesh)

    def _batch(self, step: int) -> data.Microbatches:
        self.progress.prefix = f"step {step}, "
        self.progress.mark("barrier")
        place, seed = self.mesh.place, self.options.seed
        return data.microbatches(self.plan, place, seed, step, self.device)

    def _timed_step(self, step: int, result: RankResult) -> None:
        batch = self._batch(step)
        barrier(self.mesh.everyone, self.device)
        clock = make_clock(self.device)
        recorder = Recorder(clock, self.progress.mark)
        result.starts.append(time.perf_counter())
        loss, norm = self.runner.step(batch, recorder)
        clock.settle()
        result.ends.append(time.perf_counter())
        result.losses.append(float(loss.item()))
        result.norms.append(float(norm.item()))
        result.spans.append(recorder.spans())

    def _memory_step(self, step: int) -> list[RawMemory]:
        batch = self._batch(step)
        with self._meter(batch) as meter:
            observer = MemoryObserver(meter, self.progress.mark)
            barrier(self.mesh.everyone, self.device)
            self.runner.step(batch, observer)
        return observer.points

    def _meter(self, batch: data.Microbatches) -> StorageMeter | AllocatorMeter:
        if self.device.type == "cuda":
            return AllocatorMeter()
        tensors = [tensor for pair in batch for tensor in pair]
        return StorageMeter([*resident(self.share), *tensors], self.share.updater.gathered())


def resident(share: Share) -> list[torch.Tensor]:
    """Everything of a rank that lives from step to step."""
    return [*share.updater.resident(), *share.model.buffers()]


def counts_loss(plan: Plan, mesh: Mesh) -> bool:
    """Whether a rank's losses are among those that sum to the step's."""
    return mesh.holds_last and (mesh.coordinate("tp") == 0 or loss_is_shared(plan.model))


def resident_bytes() -> float:
    """The most memory this process has had, as the operating system counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def gather_results(result: RankResult, ranks: int) -> list[RankResult] | None:
    """All ranks' results, by rank, on rank 0; None elsewhere."""
    if ranks == 1:
        return [result]
    gathered: list[RankResult] | None = [result] * ranks if result.rank == 0 else None
    dist.gather_object(result, gathered)
    return gathered


def measured(
    plan: Plan,
    results: Sequence[RankResult],
    options: RunOptions,
    machine: Machine,
    backend: Backend,
) -> Measured:
    """Join what all ranks saw."""
    steps = range(options.warmup + options.steps)
    times = [max(r.ends[i] - r.starts[i] for r in results) for i in steps]
    timed = times[options.warmup :]
    typical = options.warmup + timed.index(statistics.median_low(timed))
    return Measured(
        layout=plan.layout,
        layer_counts=plan.layer_counts,
        step_seconds=StepTimes(
            median=statistics.median(timed), min=min(timed), max=max(timed), steps=tuple(timed)
        ),
        peak_bytes={r.rank: peak_bytes(r) for r in results},
        resident_bytes={r.rank: r.resident_bytes for r in results},
        loss=tuple(sum(r.losses[i] for r in results if r.counts_loss) for i in steps),
        gradient_norm=tuple(results[0].norms),
        world_size=len(results),
        backend=backend,
        warmup_steps=options.warmup,
        machine=machine,
        timeline=timeline(plan, results, typical, times[typical]),
    )


def peak_bytes(result: RankResult) -> float:
    """The highest of one rank's memory."""
    return max(peak for _, peak, _ in result.memory)


def timeline(plan: Plan, results: Sequence[RankResult], step: int, step_seconds: float) -> Timeline:
    """One step of all ranks on one clock that starts when the first rank leaves the barrier.

    The memory was counted in another step; its points stand at the same action's middle (the
    peak) and end.
    """
    origin = min(r.starts[step] for r in results)
    return Timeline(
        kind="measured",
        title=f"{plan.model.name}: {plan.layout}",
        ranks=len(results),
        step_seconds=step_seconds,
        spans=tuple(
            Span(
                rank=r.rank,
                stream=stream,
                name=name,
                start_seconds=max(start - origin, 0.0),
                end_seconds=max(end - origin, 0.0),
            )
            for r in results
            for name, stream, start, end in r.spans[step]
        ),
        memory=tuple(point for r in results for point in _points(r, step, origin)),
        peak_bytes={r.rank: peak_bytes(r) for r in results},
        capacity_bytes=plan.cluster.memory_bytes,
    )


def _points(result: RankResult, step: int, origin: float) -> list[MemoryPoint]:
    points = []
    for (_, peak, held), (_, _, start, end) in zip(result.memory, result.spans[step], strict=True):
        for at, value in (((start + end) / 2, peak), (end, held)):
            at_seconds = max(at - origin, 0.0)
            points.append(MemoryPoint(rank=result.rank, at_seconds=at_seconds, held_bytes=value))
    return points
