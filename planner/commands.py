"""The planner's commands: plan, estimate, explain, scale, export, show, schema, doctor.

Only typer is imported here; everything else loads inside a command, for start-up time.
"""

from pathlib import Path
from typing import Any

import typer

MODEL = typer.Argument(help="Catalog name, HF config.json (or its folder), or model document.")
CLUSTER = typer.Argument(help="Catalog name (h100-sxm:8 = 8 nodes), YAML file, or local[:RANKS].")
SEQ_LEN = typer.Option(..., "--seq-len", help="Tokens per sequence.")
BATCH = typer.Option(..., "--global-batch", help="Sequences per step over all devices.")
DTYPE = typer.Option(None, "--dtype", help="fp32, bf16, fp16, ... (default: by device).")
RUNTIME = typer.Option(None, "--runtime", help="Who will execute the plan (meshwright show).")
PROFILE = typer.Option(None, "--profile", help="profile.json of a device of the cluster.")
CALIBRATION = typer.Option(
    None, "--calibration", help="calibration.json of yours, or none (default: the nearest known)."
)
ALLOW_AT_RISK = typer.Option(
    False, "--allow-at-risk", help="Also plans that may run out of memory (peak above 88 %)."
)
FIX = typer.Option([], "--fix", help="Only plans with this, e.g. tp=8 (may be repeated).")
FORBID = typer.Option([], "--forbid", help="No plan with this, e.g. zero=3 (may be repeated).")
MEMORY_LIMIT = typer.Option(None, "--memory-limit", help="Memory of a device to use, e.g. 38GB.")
MEMORY_HEADROOM = typer.Option(None, "--memory-headroom", help="Memory to leave free, e.g. 10%.")
TIME_LIMIT = typer.Option(
    None, "--time-limit", min=0, help="CPU seconds; then the best so far, with its gap."
)
FORMAT = typer.Option("table", "--format", help="table, json or csv.")
OUTPUT = typer.Option(None, "-o", "--output", help="Write the (best) plan to this file.")


def register(app: typer.Typer) -> None:
    """Add the planner's commands to the command line."""
    for command in (plan, estimate, explain, scale, export, show, schema, doctor):
        app.command()(command)


def plan(
    model: str = MODEL,
    cluster: str = CLUSTER,
    seq_len: int = SEQ_LEN,
    global_batch: int = BATCH,
    dtype: str | None = DTYPE,
    runtime: str | None = RUNTIME,
    profile: str | None = PROFILE,
    calibration: str | None = CALIBRATION,
    objective: str = typer.Option("time", "--objective", help="time, cost or devices."),
    throughput: float | None = typer.Option(
        None, "--throughput", help="Tokens/s that the fewest devices must reach (devices)."
    ),
    pareto: bool = typer.Option(
        False, "--pareto", help="All plans that are best in time, free memory or cost."
    ),
    top_k: int = typer.Option(5, "--top-k", min=1, help="How many plans to show."),
    allow_at_risk: bool = ALLOW_AT_RISK,
    fix: list[str] = FIX,
    forbid: list[str] = FORBID,
    memory_limit: str | None = MEMORY_LIMIT,
    memory_headroom: str | None = MEMORY_HEADROOM,
    time_limit: float | None = TIME_LIMIT,
    output: Path | None = OUTPUT,
    output_format: str = FORMAT,
) -> None:
    """Choose how to split MODEL over CLUSTER."""
    from planner.search import answer, planning, question
    from planner.search.wishes import Wishes
    from planner.spec import documents, printing

    printing.check_format(output_format)
    if pareto:
        _check_front(output, objective, throughput)
    if output is not None:
        documents.check_place(output)
    blocks = question.ask(
        model, cluster, seq_len, global_batch, dtype, runtime, profile, calibration
    )
    wishes = Wishes.of(fix, forbid, memory_limit, memory_headroom, time_limit)
    if pareto:
        _print_front(planning.pareto(blocks, allow_at_risk, wishes), output_format)
        return
    ranking, plans = planning.choose(blocks, objective, top_k, allow_at_risk, wishes, throughput)
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


def _check_front(output: Path | None, objective: str, throughput: float | None) -> None:
    from planner.spec.documents import InputError

    if output is not None:
        raise InputError(
            "-o writes one plan, --pareto finds many; leave one of them out, or print the front "
            "with --format json"
        )
    if objective != "time" or throughput is not None:
        raise InputError(
            "--pareto has every best trade of time, memory and cost; leave out --objective and "
            "--throughput"
        )


def _print_front(found: Any, output_format: str) -> None:
    from planner.spec import printing

    if output_format == "json":
        printing.print_json(found.json())
    elif output_format == "csv":
        printing.print_csv(found.rows())
    else:
        printing.print_table(found.rows(), "Best in step time, memory left free or cost")
        _say(f"Proof: {found.claim}.")


def estimate(
    model: str = MODEL,
    cluster: str = CLUSTER,
    layout: str = typer.Option(..., "--layout", help='"dp=8 tp=8 pp=4 micro_batch=1 zero=1".'),
    seq_len: int = SEQ_LEN,
    global_batch: int = BATCH,
    dtype: str | None = DTYPE,
    runtime: str | None = RUNTIME,
    profile: str | None = PROFILE,
    calibration: str | None = CALIBRATION,
    output: Path | None = OUTPUT,
    output_format: str = FORMAT,
) -> None:
    """Predict step time and memory of one layout."""
    from planner.search import answer, question, told_layout
    from planner.spec import documents, printing

    printing.check_format(output_format)
    blocks = question.ask(
        model, cluster, seq_len, global_batch, dtype, runtime, profile, calibration
    )
    found = told_layout.plan_of_layout(blocks, layout)
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
    """Say why a plan is as fast as it is, what its neighbours lose, and what would change it."""
    from planner.search import answer, planning
    from planner.search.reasons import neighbours
    from planner.spec import documents, printing
    from planner.spec.plan import Plan

    printing.check_format(output_format, ("table", "json"))
    found = planning.explain(documents.load(Plan, plan_file))
    if output_format == "json":
        printing.print_json(found.json())
    else:
        printing.print_table(answer.plan_rows((found.plan,)))
        printing.print_table(answer.prediction_rows(found.plan))
        if found.neighbours:
            printing.print_table(neighbours.rows(found.neighbours), "What another decision loses")
        _say("\n".join(found.why))


def scale(
    model: str = MODEL,
    cluster: str = CLUSTER,
    devices: str = typer.Option(..., "--devices", help="8,16,32,..."),
    seq_len: int = SEQ_LEN,
    global_batch: int = BATCH,
    dtype: str | None = DTYPE,
    runtime: str | None = RUNTIME,
    profile: str | None = PROFILE,
    calibration: str | None = CALIBRATION,
    allow_at_risk: bool = ALLOW_AT_RISK,
    output_format: str = FORMAT,
) -> None:
    """Best plan, speed-up and cost at several numbers of devices (the global batch stays)."""
    from planner.search import question, scaling
    from planner.spec import printing

    printing.check_format(output_format)
    counts = scaling.read_counts(devices)
    blocks = question.ask(
        model, cluster, seq_len, global_batch, dtype, runtime, profile, calibration
    )
    curve = scaling.curve(blocks, counts, allow_at_risk)
    if output_format == "json":
        printing.print_json({"schema": "scaling/1", "curve": curve})
    elif output_format == "csv":
        printing.print_csv(curve)
    else:
        title = f"{blocks.model.name} on {blocks.cluster.accelerator.name}"
        printing.print_table(scaling.rows(curve), title)


def export(
    plan_file: Path = typer.Argument(metavar="PLAN.json", help="A plan made by `plan`."),
    target: str = typer.Option(..., "--target", help="torchrun, slurm or kubernetes."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for the files."),
) -> None:
    """Write the files that start a plan's training elsewhere."""
    from planner.export import targets
    from planner.spec import documents
    from planner.spec.plan import Plan

    written = targets.write(targets.export(documents.load(Plan, plan_file), target), output)
    typer.echo("\n".join(map(str, written)))


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
    what: str = typer.Argument(
        "", help="models, clusters, accelerators, runtimes, schedules, or one."
    ),
    name: str = typer.Argument("", help="Name of one entry."),
    graph: Path | None = typer.Option(None, "--graph", help="Model: .graphml, .svg or .json."),
    seq_len: int | None = typer.Option(None, "--seq-len", help="Model: tokens per sequence."),
    micro_batch: int = typer.Option(1, "--micro-batch", help="Model: sequences."),
    dtype: str = typer.Option("bf16", "--dtype", help="Model: format of weights, activations."),
    task: str = typer.Option("train", "--task", help="Model: train, prefill or decode."),
    cached: int = typer.Option(0, "--cached", help="Model: tokens in the cache before."),
    layout: str = typer.Option("", "--layout", help='Model: one rank of "tp=8 ep=4 dp=2".'),
    cp_style: str = typer.Option("ring", "--cp-style", help="ring, all_to_all or all_gather."),
    mtp: int | None = typer.Option(None, "--mtp", help="Model: layers for further tokens."),
    ranks: int | None = typer.Option(None, "--ranks", help="Schedule: ranks of the pipeline."),
    microbatches: int | None = typer.Option(None, "--microbatches", help="Schedule: per step."),
    chunks: int | None = typer.Option(None, "--chunks", help="Schedule: stages per rank."),
    communication: bool = typer.Option(
        False, "--communication", help="Schedule: with sends, receives and reductions."
    ),
    output_format: str = FORMAT,
) -> None:
    """List the catalog, or show one entry: a model with its operators, a schedule as a grid."""
    from planner import listing, model_card, schedule_card
    from planner.spec import printing

    printing.check_format(output_format)
    if what in ("schedule", "schedules") and name:
        listing.refuse_options(what, graph, seq_len, layout)
        orders = schedule_card.find(name, ranks, microbatches, chunks)
        _print_schedule(orders, communication, output_format)
        return
    schedule_card.refuse_options(what, ranks, microbatches, chunks, communication)
    if what in ("model", "models") and name:
        model = model_card.find(name, mtp)
        view, copies = model_card.view_of(
            model, seq_len, micro_batch, dtype, task, cached, layout, cp_style
        )
        made = model_card.card(model, view, copies)
        if graph is not None:
            typer.echo(f"wrote {model_card.write_graph(model, view, graph)}", err=True)
        _print_card(made, output_format)
        return
    listing.refuse_options(what, graph, seq_len, layout)
    title, rows, value = listing.listing(what, name)
    if output_format == "json":
        printing.print_json(value)
    elif output_format == "csv":
        printing.print_csv(rows)
    else:
        printing.print_table(rows, title)


def _print_schedule(made: Any, communication: bool, output_format: str) -> None:
    from planner import schedule_card
    from planner.schedule import sheet
    from planner.spec import printing

    if output_format == "json":
        printing.print_json(schedule_card.card(made))
    elif output_format == "csv":
        written = sheet.with_communication if communication else sheet.compute_only
        typer.echo(written(made), nl=False)
    else:
        shown = schedule_card.lowered if communication else schedule_card.drawing
        typer.echo(shown(made))


def _print_card(made: dict[str, Any], output_format: str) -> None:
    from planner import model_card
    from planner.spec import printing

    if output_format == "json":
        printing.print_json(made)
    elif output_format == "csv":
        printing.print_csv(model_card.operator_rows(made))
    else:
        shape = f"{made['micro_batch']} x {made['seq_len']} tokens, {made['dtype']}"
        printing.print_table(model_card.fact_rows(made), f"{made['name']} ({made['family']})")
        printing.print_table(model_card.layer_rows(made), f"Layers, {made['task']}, {shape}")
        printing.print_table(model_card.operator_rows(made), "Operators")
        if made["collectives"]:
            printing.print_table(model_card.collective_rows(made), "Collectives of this rank")


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
