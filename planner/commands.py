"""The planner's commands: plan, estimate, explain, scale, show, schema, doctor.

Only typer is imported here; everything else loads inside a command, for start-up time.
"""

from pathlib import Path

import typer

MODEL = typer.Argument(help="Catalog name, HF config.json (or its folder), or model document.")
CLUSTER = typer.Argument(help="Catalog name (h100-sxm:8 = 8 nodes), YAML file, or local[:RANKS].")
SEQ_LEN = typer.Option(..., "--seq-len", help="Tokens per sequence.")
BATCH = typer.Option(..., "--global-batch", help="Sequences per step over all devices.")
DTYPE = typer.Option(None, "--dtype", help="fp32, bf16, fp16, ... (default: by device).")
RUNTIME = typer.Option(None, "--runtime", help="Who will execute the plan (meshwright show).")
PROFILE = typer.Option(None, "--profile", help="profile.json of a device of the cluster.")
FORMAT = typer.Option("table", "--format", help="table, json or csv.")
OUTPUT = typer.Option(None, "-o", "--output", help="Write the (best) plan to this file.")


def register(app: typer.Typer) -> None:
    """Add the planner's commands to the command line."""
    for command in (plan, estimate, explain, scale, show, schema, doctor):
        app.command()(command)


def plan(
    model: str = MODEL,
    cluster: str = CLUSTER,
    seq_len: int = SEQ_LEN,
    global_batch: int = BATCH,
    dtype: str | None = DTYPE,
    runtime: str | None = RUNTIME,
    profile: str | None = PROFILE,
    objective: str = typer.Option("time", "--objective", help="time or cost."),
    top_k: int = typer.Option(5, "--top-k", min=1, help="How many plans to show."),
    output: Path | None = OUTPUT,
    output_format: str = FORMAT,
) -> None:
    """Choose how to split MODEL over CLUSTER."""
    from planner.search import answer, planning, question
    from planner.spec import documents, printing

    printing.check_format(output_format)
    blocks = question.ask(model, cluster, seq_len, global_batch, dtype, runtime, profile)
    ranking, plans = planning.choose(blocks, objective, top_k)
    if output is not None:
        documents.save(plans[0], output)
    if output_format == "json":
        printing.print_json(answer.plans_json(ranking, plans))
    elif output_format == "csv":
        printing.print_csv(answer.plan_rows(plans))
    else:
        title = planning.headline(blocks, ranking)
        printing.print_table(answer.plan_rows(plans), title)
        _say("\n".join(plans[0].why))


def estimate(
    model: str = MODEL,
    cluster: str = CLUSTER,
    layout: str = typer.Option(..., "--layout", help='"dp=8 tp=8 pp=4 micro_batch=1 zero=1".'),
    seq_len: int = SEQ_LEN,
    global_batch: int = BATCH,
    dtype: str | None = DTYPE,
    runtime: str | None = RUNTIME,
    profile: str | None = PROFILE,
    output: Path | None = OUTPUT,
    output_format: str = FORMAT,
) -> None:
    """Predict step time and memory of one layout."""
    from planner.search import answer, question
    from planner.spec import documents, printing

    printing.check_format(output_format)
    blocks = question.ask(model, cluster, seq_len, global_batch, dtype, runtime, profile)
    found = question.plan_of_layout(blocks, layout)
    assert found.predicted is not None
    if output is not None:
        documents.save(found, output)
    if output_format == "json":
        schema_name = {"schema": "prediction/1"}
        printing.print_json(schema_name | found.predicted.model_dump(mode="json"))
    elif output_format == "csv":
        printing.print_csv(answer.plan_rows((found,)))
    else:
        printing.print_table(answer.plan_rows((found,)))
        printing.print_table(answer.prediction_rows(found))


def explain(
    plan_file: Path = typer.Argument(metavar="PLAN.json", help="A plan made by `plan`."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Say why a plan is as fast as it is, and what its neighbours lose."""
    from planner.search import answer, planning
    from planner.spec import documents, printing
    from planner.spec.plan import Plan

    printing.check_format(output_format, ("table", "json"))
    explained = planning.explain(documents.load(Plan, plan_file))
    if output_format == "json":
        reasons = {"schema": "explanation/1", "why": list(explained.why)}
        printing.print_json(reasons | answer.plan_json(explained))
    else:
        printing.print_table(answer.plan_rows((explained,)))
        printing.print_table(answer.prediction_rows(explained))
        _say("\n".join(explained.why))


def scale(
    model: str = MODEL,
    cluster: str = CLUSTER,
    devices: str = typer.Option(..., "--devices", help="8,16,32,..."),
    seq_len: int = SEQ_LEN,
    global_batch: int = BATCH,
    dtype: str | None = DTYPE,
    runtime: str | None = RUNTIME,
    profile: str | None = PROFILE,
    output_format: str = FORMAT,
) -> None:
    """Best plan, speed-up and cost at several numbers of devices (the global batch stays)."""
    from planner.search import question, scaling
    from planner.spec import printing

    printing.check_format(output_format)
    counts = question.read_counts(devices)
    blocks = question.ask(model, cluster, seq_len, global_batch, dtype, runtime, profile)
    rows = scaling.curve(blocks, counts)
    if output_format == "json":
        printing.print_json({"schema": "scaling/1", "curve": rows})
    elif output_format == "csv":
        printing.print_csv(rows)
    else:
        printing.print_table(rows, f"{blocks.model.name} on {blocks.cluster.accelerator.name}")


def doctor(output_format: str = typer.Option("table", "--format", help="table or json.")) -> None:
    """Say what this machine has, and what is missing for which command."""
    from planner import health
    from planner.spec import printing

    printing.check_format(output_format, ("table", "json"))
    rows = health.examine()
    if output_format == "json":
        printing.print_json({"schema": "doctor/1", "checks": rows})
    else:
        printing.print_table(rows)


def show(
    what: str = typer.Argument("", help="models, clusters, runtimes, model or cluster."),
    name: str = typer.Argument("", help="Name of one entry."),
    output_format: str = FORMAT,
) -> None:
    """List the catalog, or show one entry."""
    from planner import listing
    from planner.spec import printing

    printing.check_format(output_format)
    title, rows, value = listing.listing(what, name)
    if output_format == "json":
        printing.print_json(value)
    elif output_format == "csv":
        printing.print_csv(rows)
    else:
        printing.print_table(rows, title)


def schema(
    name: str = typer.Argument(help="model, cluster, workload, runtime, profile, plan, ..."),
) -> None:
    """Print the JSON Schema of a document."""
    from planner import listing
    from planner.spec import printing

    printing.print_json(listing.schema(name))


def _say(text: str) -> None:
    from planner.spec import printing

    printing.console().print(text, highlight=False, soft_wrap=True, markup=False)
