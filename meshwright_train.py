"""The command `train`: train a plan's model for a task.

It stands beside the front door because it may both plan and run, which no room may.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from executor.training.options import TrainOptions
    from planner.spec.plan import Plan
    from planner.spec.trained import Trained

PLAN = typer.Option(..., "--plan", help="plan.json, as `meshwright plan -o` writes it.")
TASK = typer.Option("language", "--task", help="language, tags or translation.")
STEPS = typer.Option(200, "--steps", help="Optimiser steps.")
OUTPUT = typer.Option("runs/train", "-o", "--output", help="Folder for the results.")
LEARNING_RATE = typer.Option(1e-3, "--learning-rate", help="The peak, reached after the warm-up.")
WARMUP = typer.Option(None, "--warmup", help="Steps of the warm-up (default: a twentieth).")
CLIP_NORM = typer.Option(None, "--clip-norm", help="Scale larger gradients down to this norm.")
HELD_OUT = typer.Option(4, "--held-out", help="Global batches of held-out data for the metric.")
SEED = typer.Option(0, "--seed", help="Of the initial weights and of the order of the data.")
TENSORBOARD = typer.Option(None, "--tensorboard", help="Write TensorBoard scalars to this folder.")
CHECKPOINT_EVERY = typer.Option(None, "--checkpoint-every", help="Steps between checkpoints.")
KEEP = typer.Option(2, "--keep", help="How many checkpoints to keep.")
RESUME = typer.Option(
    False, "--resume", help="Go on from the newest checkpoint in the folder, under any plan."
)
RESTARTS = typer.Option(
    0, "--restarts", min=0, help="How often to start again when a rank dies or hangs."
)
ELASTIC = typer.Option(
    False, "--elastic", help="When no restart is left, plan anew for the devices that are."
)
TIMEOUT = typer.Option("60s", "--timeout", help="How long a rank waits for another.")
BACKEND = typer.Option("auto", "--backend", help="auto, gloo or nccl.")
FORMAT = typer.Option("table", "--format", help="table or json.")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(train)


def train(
    plan: Path = PLAN,
    task: str = TASK,
    steps: int = STEPS,
    output: Path = OUTPUT,
    learning_rate: float = LEARNING_RATE,
    warmup: int | None = WARMUP,
    clip_norm: float | None = CLIP_NORM,
    held_out: int = HELD_OUT,
    seed: int = SEED,
    tensorboard: Path | None = TENSORBOARD,
    checkpoint_every: int | None = CHECKPOINT_EVERY,
    keep: int = KEEP,
    resume: bool = RESUME,
    restarts: int = RESTARTS,
    elastic: bool = ELASTIC,
    timeout: str = TIMEOUT,
    backend: str = BACKEND,
    output_format: str = FORMAT,
) -> None:
    """Train a plan's model for a task on this machine, one process per rank."""
    from executor.training.options import TrainOptions, read_seconds
    from planner.spec import documents, printing
    from planner.spec.plan import Plan

    printing.check_format(output_format, ("table", "json"))
    options = TrainOptions(
        task=task,
        steps=steps,
        output=output,
        learning_rate=learning_rate,
        warmup=warmup,
        clip_norm=clip_norm,
        held_out=held_out,
        seed=seed,
        tensorboard=tensorboard,
        checkpoint_every=checkpoint_every,
        keep=keep,
        resume=resume,
        timeout_seconds=read_seconds(timeout),
        backend=backend,
    )
    found = survive(documents.load(Plan, plan), options, restarts, elastic)
    typer.echo(f"wrote {output / 'trained.json'}", err=True)
    if output_format == "json":
        printing.print_json(found.model_dump(mode="json"))
    else:
        printing.print_table([_row(found)], f"{found.model} trained for {found.task}")


def survive(
    plan: "Plan", options: "TrainOptions", restarts: int = 0, elastic: bool = False
) -> "Trained":
    """Train a plan to its end, whatever ranks it loses on the way.

    A rank that dies or hangs ends the others; then everything goes on from the last checkpoint:
    `restarts` times with all devices, after that, if elastic, with a new plan for the devices
    whose ranks did not fail. Raises InputError, NoPlanError, or the RunError that is one too many.
    """
    from executor.processes.supervisor import RunError
    from executor.training.launch import find_checkpoint, train_plan
    from planner.search.replanning import replan
    from planner.spec.documents import InputError

    if (restarts or elastic) and options.checkpoint_every is None:
        raise InputError("--restarts and --elastic need --checkpoint-every STEPS to go on from")
    devices = tuple(range(plan.layout.devices))
    while True:
        if options.resume:
            _say("\n".join(find_checkpoint(plan, options)))
        try:
            return train_plan(plan, options, devices[: plan.layout.devices])
        except RunError as error:
            if not error.lost or not (restarts or elastic):
                raise
            _say(str(error))
            if restarts:
                restarts -= 1
                _say(f"starting again, {restarts} restarts are left")
            else:
                devices = tuple(d for i, d in enumerate(devices) if i not in error.lost)
                plan = replan(plan, len(devices))
                _say(f"planned anew for {len(devices)} devices: {plan.title}")
        options = dataclasses.replace(options, resume=True)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _row(found: "Trained") -> dict[str, Any]:
    return {
        "plan": str(found.layout),
        "steps": found.steps,
        "first loss": found.loss[0],
        "last loss": found.loss[-1],
        "held-out loss": found.held_out_loss,
        found.metric: found.value,
        "seconds": found.seconds,
    }
