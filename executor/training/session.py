"""Session: one start of a training on one rank, from the data to the metric.

The first rank writes DIR/history.jsonl step by step, DIR/trained.json at the end and, where
asked, TensorBoard's files.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from executor.mesh import Mesh
from executor.progress import Progress
from executor.training import agreement, history, tasks
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

    def train(self) -> Trained:
        """Train to the end; every rank returns the same. Raises InputError."""
        plan, options = self.plan, self.options
        self.progress.mark("reading the data")
        task = tasks.make(options.task, plan, options.seed)
        agreement.check_data(task.digest, self.mesh, self.device)
        loop = Loop(plan, self.mesh, self.device, options, task, self.progress)
        records: list[StepRecord] = []
        with self._listeners(records) as listener:
            loop.run(0, listener)
        held_out_loss = loop.held_out_loss()
        self.progress.mark("writing the result")
        found = self._trained(task, records, held_out_loss)
        if self.mesh.rank == 0:
            documents.save(found, options.output / RESULT)
        return found

    @contextlib.contextmanager
    def _listeners(self, records: list[StepRecord]) -> Iterator[Listener]:
        """Who hears of every step: the records, and on the first rank the files."""
        if self.mesh.rank:
            yield records.append
            return
        path, folder = self.options.output / history.NAME, self.options.tensorboard
        history.write(path, records)
        with contextlib.ExitStack() as stack:
            scalars = stack.enter_context(ScalarWriter(folder)) if folder else None

            def listener(record: StepRecord) -> None:
                records.append(record)
                history.append(path, record)
                if scalars is not None:
                    scalars.add(record.step, _scalars(record))

            yield listener

    def _trained(self, task: Task, records: list[StepRecord], held_out_loss: float) -> Trained:
        return Trained(
            task=task.name,
            metric=task.metric,
            value=task.value(held_out_loss),
            held_out_loss=held_out_loss,
            model=self.plan.model.name,
            layout=self.plan.layout,
            layer_counts=self.plan.layer_counts,
            steps=self.options.steps,
            first_step=0,
            loss=tuple(record.loss for record in records),
            gradient_norm=tuple(record.gradient_norm for record in records),
            seconds=sum(record.seconds for record in records),
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
