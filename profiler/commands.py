"""The profiler's command: profile.

Only typer is imported here; everything else loads inside the command, for start-up time.
"""

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the profiler's command to the command line."""
    app.command()(profile)


def profile(
    output: Path = typer.Option(Path("profile.json"), "-o", "--output", help="Where to write it."),
    budget: str = typer.Option("60s", "--budget", help="Time to spend, such as 60s or 5min."),
    model: str | None = typer.Option(None, "--model", help="Measure what this model needs."),
    seq_len: int = typer.Option(128, "--seq-len", min=1, help="Tokens per sequence."),
    micro_batch: str = typer.Option("1,2,4", "--micro-batch", help="Microbatch sizes."),
    tp: str = typer.Option("1,2", "--tp", help="Tensor-parallel degrees."),
    dtype: str | None = typer.Option(None, "--dtype", help="fp32, bf16, ... (default: by device)."),
    ranks: int = typer.Option(2, "--ranks", min=1, help="Most ranks in a collective."),
    resume: Path | None = typer.Option(None, "--resume", help="Continue this profile.json."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Measure this machine: operators, collectives, shared cores."""
    from planner.spec import printing
    from profiler import answer, question
    from profiler.session import take_profile

    printing.check_format(output_format, ("table", "json"))
    asked = question.ask(model, seq_len, micro_batch, tp, dtype)
    with answer.progress() as show:
        taken = take_profile(
            asked.requests,
            asked.message_sizes,
            max_ranks=ranks,
            budget_seconds=question.seconds("--budget", budget),
            reference=asked.reference,
            previous=question.previous(resume),
            progress=show,
            checkpoint=output,
            command=f"meshwright profile {model or ''}".strip(),
        )
    if output_format == "json":
        printing.print_json(taken.model_dump(mode="json"))
    else:
        answer.print_profile(taken)
    typer.echo(f"wrote {output}", err=True)
