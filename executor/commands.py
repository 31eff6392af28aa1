"""The executor's command: run.

Only typer is imported here; everything else loads inside the command, for start-up time.
"""

from pathlib import Path

import typer

PLAN = typer.Argument(help="plan.json, as `meshwright plan -o` writes it.")
OUTPUT = typer.Option(None, "-o", "--output", help="Write measured.json to this file.")
STEPS = typer.Option(8, "--steps", help="Timed steps.")
WARMUP = typer.Option(3, "--warmup", help="Steps before the timed ones.")
TIMEOUT = typer.Option("60s", "--timeout", help="How long a rank waits for another.")
BACKEND = typer.Option("auto", "--backend", help="auto, gloo or nccl.")
CLIP_NORM = typer.Option(None, "--clip-norm", help="Scale larger gradients down to this norm.")
EMULATE = typer.Option(
    None, "--emulate-rank", help="Run one rank alone; messages become waits of predicted length."
)
MODULE = typer.Option(
    None, "--module", help="Divide your own module: FILE.py:FUNCTION that builds it."
)
FORMAT = typer.Option("table", "--format", help="table or json.")


def register(app: typer.Typer) -> None:
    """Add the executor's commands to the command line."""
    app.command()(run)


def run(
    context: typer.Context,
    plan: Path = PLAN,
    output: Path | None = OUTPUT,
    steps: int = STEPS,
    warmup: int = WARMUP,
    timeout: str = TIMEOUT,
    backend: str = BACKEND,
    clip_norm: float | None = CLIP_NORM,
    emulate_rank: int | None = EMULATE,
    module: str | None = MODULE,
    output_format: str = FORMAT,
) -> None:
    """Run a plan on this machine, one process per rank, and measure it."""
    from executor.alone.emulation import emulate
    from executor.options import read_options
    from executor.processes.launch import run_plan
    from executor.results import as_json, rows, title
    from planner.spec import documents, printing
    from planner.spec.plan import Plan

    printing.check_format(output_format, ("table", "json"))
    options = read_options(steps, warmup, timeout, backend, clip_norm=clip_norm, module=module)
    chosen = documents.load(Plan, plan)
    if output is not None:
        documents.check_place(output)
    if emulate_rank is None:
        typer.echo(f"running {chosen.layout} on {chosen.layout.devices} ranks ...", err=True)
        found = run_plan(chosen, options)
    else:
        typer.echo(f"running rank {emulate_rank} of {chosen.layout} alone ...", err=True)
        # the front door knows a planner, this room does not
        found = emulate(chosen, emulate_rank, context.obj.foresee(chosen, emulate_rank), options)
    if output is not None:
        documents.save(found, output)
        typer.echo(f"wrote {output}", err=True)
    if output_format == "json":
        printing.print_json(as_json(found))
    else:
        printing.print_table(rows(found), title(found))
