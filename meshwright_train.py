"""The command `train`: train a plan's model for a task.

It stands beside the front door because it may both plan and run, which no room may.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from planner.spec.trained import Trained

PLAN = typer.Option(..., "--plan", help="plan.json, as `meshwright plan -o` writes it.")
TASK = typer.Option("language", "--task", help="language: the text of Python's own library.")
STEPS = typer.Option(200, "--steps", help="Optimiser steps.")
OUTPUT = typer.Option("runs/train", "-o", "--output", help="Folder for the results.")
LEARNING_RATE = typer.Option(1e-3, "--learning-rate", help="The peak, reached after the warm-up.")
WARMUP = typer.Option(None, "--warmup", help="Steps of the warm-up (default: a twentieth).")
CLIP_NORM = typer.Option(None, "--clip-norm", help="Scale larger gradients down to this norm.")
HELD_OUT = typer.Option(4, "--held-out", help="Global batches of held-out data for the metric.")
SEED = typer.Option(0, "--seed", help="Of the initial weights and of the order of the data.")
TENSORBOARD = typer.Option(None, "--tensorboard", help="Write TensorBoard scalars to this folder.")
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
    timeout: str = TIMEOUT,
    backend: str = BACKEND,
    output_format: str = FORMAT,
) -> None:
    """Train a plan's model for a task on this machine, one process per rank."""
    from executor.training.launch import train_plan
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
        timeout_seconds=read_seconds(timeout),
        backend=backend,
    )
    found = train_plan(documents.load(Plan, plan), options)
    typer.echo(f"wrote {output / 'trained.json'}", err=True)
    if output_format == "json":
        printing.print_json(found.model_dump(mode="json"))
    else:
        printing.print_table([_row(found)], f"{found.model} trained for {found.task}")


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
