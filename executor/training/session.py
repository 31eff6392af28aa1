"""Session: one start of a training on one rank, from the data to the metric.

The first rank writes DIR/history.jsonl step by step, DIR/trained.json at the end and, where
asked, TensorBoard's files; all ranks write the checkpoints.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from executor.parallel.mesh import Mesh
from executor.processes.progress import Progress
from executor.training import agreement, history, tasks
from executor.training.checkpoints import Checkpoints
from executor.training.history import StepRecord
from executor.training.loop import Listener, Loop
from executor.training.options import TrainOptions
from executor.training.scalars import ScalarWriter
from executor.training.task import Task
from planner.spec import documents
from planner.spec.cluster import Backend
from planner.spec.plan import Plan
from planner.spec.profile import Machine
from planner.spec.trained import Trained

RESULT = "trained.json"


@dataclass(frozen=True, slots=True)
class Session:
    """Where and how a rank trains."""

    plan: Plan
    options: TrainOptions
    mesh: Mesh
    device: torch.device
    backend: Backend
    machine: Machine
    progress: Progress

    def train(self) -> Trained | None:
        """Train to the end; the result on the first rank, None elsewhere. Raises InputError."""
        plan, options = self.plan, self.options
        self.progress.mark("reading the data")
        task = tasks.make(options.task, plan, options.seed)
        agreement.check_data(task.digest, self.mesh, self.device)
        loop = Loop(plan, self.mesh, self.device, options, task, self.progress)
        checkpoints = Checkpoints(plan, options, self.mesh, task.digest)
        first = self._resume(checkpoints, loop) if options.resume else 0
        with self._listeners(first) as listener:
            loop.run(first, self._saving(listener, checkpoints, loop))
        held_out_loss = loop.held_out_loss()
        value = task.value(held_out_loss, loop.judged() if task.predicts else [])
        if self.mesh.rank:
            return None
        self.progress.mark("writing the result")
        records = history.read(options.output / history.NAME)
        found = self._trained(task, first, records, held_out_loss, value)
        documents.save(found, options.output / RESULT)
        return found

    def _resume(self, checkpoints: Checkpoints, loop: Loop) -> int:
        self.progress.mark("reading a checkpoint")
        first, notes = checkpoints.resume(loop.share.updater)
        if self.mesh.rank == 0:
            sys.stderr.write("".join(f"{note}\n" for note in notes))
        return first

    def _saving(self, listener: Listener, checkpoints: Checkpoints, loop: Loop) -> Listener:
        """The listener, and then a checkpoint where one is due."""
        every, steps = self.options.checkpoint_every, self.options.steps

        def after(record: StepRecord) -> None:
            listener(record)
            done = record.step + 1
            if every and (done % every == 0 or done == steps):
                self.progress.mark("writing a checkpoint")
                checkpoints.save(loop.share.updater, done)

        return after

    @contextlib.contextmanager
    def _listeners(self, first: int) -> Iterator[Listener]:
        """Who hears of every step: on the first rank the files, elsewhere nobody."""
        if self.mesh.rank:
            yield lambda record: None
            return
        path, folder = self.options.output / history.NAME, self.options.tensorboard
        history.write(path, [past for past in history.read(path) if past.step < first])
        with contextlib.ExitStack() as stack:
            scalars = stack.enter_context(ScalarWriter(folder)) if folder else None

            def listener(record: StepRecord) -> None:
                history.append(path, record)
                if scalars is not None:
                    scalars.add(record.step, _scalars(record))

            yield listener

    def _trained(
        self,
        task: Task,
        first: int,
        records: list[StepRecord],
        held_out_loss: float,
        value: float,
    ) -> Trained:
        return Trained(
            task=task.name,
            metric=task.metric,
            value=value,
            held_out_loss=held_out_loss,
            model=self.plan.model.name,
            layout=self.plan.layout,
            layer_counts=self.plan.layer_counts,
            steps=self.options.steps,
            first_step=first,
            loss=tuple(record.loss for record in records),
            gradient_norm=tuple(record.gradient_norm for record in records),
            seconds=sum(record.seconds for record in records if record.step >= first),
            world_size=self.plan.layout.devices,
            backend=self.backend,
            data=task.digest,
            machine=self.machine,
        )


def _scalars(record: StepRecord) -> dict[str, float]:
    return {
        "loss": record.loss,
        "gradient_norm": record.gradient_norm,
        "learning_rate": record.learning_rate,
        "step_seconds": record.seconds,
    }
