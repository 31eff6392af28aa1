"""Loop: the steps of one rank of a training, and its metric.

A step: the learning rate of the step, the batch of the step, the rank's actions; then the loss is
summed over all ranks, so every rank knows it, and every rank stops in the same step when it is no
number. Neither changes the order of additions inside a step, so plans agree as they do in `run`.

    loss   = sum over dp ranks and microbatches of (mean over tokens) / (microbatches * dp)
    metric = task.value(mean of that over the held-out batches, predictions where it needs them)
"""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from executor import data
from executor.apply import Share, apply
from executor.parallel import collectives
from executor.parallel.mesh import Mesh
from executor.processes.progress import BUILDING, Progress
from executor.runner import Runner
from executor.train import counts_loss
from executor.training.history import StepRecord
from executor.training.options import TrainOptions
from executor.training.rate import rate
from executor.training.task import Batch, Judged, Task
from planner.schedule.action import Action
from planner.spec.documents import InputError
from planner.spec.plan import Plan

Listener = Callable[[StepRecord], None]


class _Marks:
    """Notes every action as it begins, for whoever has to say where a rank stopped."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def before(self, action: Action) -> None:
        self._progress.mark(str(action))

    def after(self, action: Action) -> None:
        pass


class Loop:
    """Trains one rank's share of a plan."""

    def __init__(
        self,
        plan: Plan,
        mesh: Mesh,
        device: torch.device,
        options: TrainOptions,
        task: Task,
        progress: Progress,
    ):
        progress.mark(BUILDING)
        self.plan, self.mesh, self.device = plan, mesh, device
        self.options, self.task, self.progress = options, task, progress
        self.share: Share = apply(
            plan, mesh, device, options.seed, options.learning_rate, options.clip_norm
        )
        self._runner = Runner(plan, mesh, self.share, device)
        self._counts_loss = counts_loss(plan, mesh)

    def run(self, first: int, listener: Listener) -> None:
        """The steps from `first` to the last. Raises InputError when the loss is no number."""
        for step in range(first, self.options.steps):
            record = self._step(step)
            if not (math.isfinite(record.loss) and math.isfinite(record.gradient_norm)):
                raise InputError(_not_finite(record))
            listener(record)

    def held_out_loss(self) -> float:
        """Mean loss over the held-out batches."""
        count = self.options.held_out
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for index in range(count):
            self.progress.prefix = f"held-out batch {index}, "
            self.progress.mark("forward")
            batch = self._divided(self.task.held_out_batch(index, count))
            total += self._whole(self._runner.evaluate(batch))
        return float(total.item()) / count

    def judged(self) -> list[Judged]:
        """Predictions and targets of the held-out batches, whole, on every rank."""
        count = self.options.held_out
        return [self._judged(self.task.held_out_batch(i, count)) for i in range(count)]

    def _judged(self, batch: Batch) -> Judged:
        """Each rank puts what it predicts where the division says that it belongs."""
        _, targets = batch
        places = torch.arange(targets.numel()).view(targets.shape)
        own = self._divided((places, places))
        whole = torch.zeros(targets.numel(), dtype=torch.int64, device=self.device)
        predicted = self._runner.predict(self._divided(batch))
        if self._counts_loss:
            for values, (_, where) in zip(predicted, own, strict=True):
                # a head of classes has its part of the rows, any other head all of them
                first = self.mesh.coordinate("tp") * values.numel() % where.numel()
                whole[where.flatten()[first:][: values.numel()]] = values.flatten()
        collectives.all_reduce(whole, self.mesh.everyone)
        return whole.view(targets.shape).cpu(), targets

    def _step(self, step: int) -> StepRecord:
        options, started = self.options, time.perf_counter()
        self.progress.prefix = f"step {step}, "
        self.progress.mark("batch")
        now = rate(step, options.steps, options.warmup_steps, options.learning_rate)
        for group in self.share.updater.adamw.param_groups:
            group["lr"] = now
        batch = self._divided(self.task.training_batch(step))
        loss, norm = self._runner.step(batch, _Marks(self.progress))
        self.progress.mark("summing the loss")
        whole = float(self._whole(loss).item())
        return StepRecord(step, whole, float(norm.item()), now, time.perf_counter() - started)

    def _divided(self, batch: Batch) -> data.Microbatches:
        return data.divide(self.plan, self.mesh.place, batch, self.device)

    def _whole(self, share: Tensor) -> Tensor:
        """A loss from the ranks' shares of it, on every rank."""
        total = share.double() if self._counts_loss else torch.zeros_like(share).double()
        collectives.all_reduce(total, self.mesh.everyone)
        return total


def _not_finite(record: StepRecord) -> str:
    return (
        f"step {record.step}: the loss is {record.loss} and the gradient norm "
        f"{record.gradient_norm} (learning rate {record.learning_rate:.3g}); the training stopped "
        f"there. Lower --learning-rate, give --clip-norm 1, or plan with a wider --dtype"
    )
