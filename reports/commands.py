"""The reports' commands: simulate, compare, report, validate, calibrate.

Only typer is imported here; everything else loads inside a command, for start-up time.
"""

from pathlib import Path
from typing import Any

import typer

FORMAT = typer.Option("table", "--format", help="table, json or csv.")


def register(app: typer.Typer) -> None:
    """Add the reports' commands to the command line."""
    for command in (simulate, compare, report, validate, calibrate):
        app.command()(command)


def simulate(
    plan_file: Path = typer.Argument(metavar="PLAN.json", help="A plan made by `plan`."),
    output: Path | None = typer.Option(None, "-o", "--output", help="Write the timeline here."),
    trace: Path | None = typer.Option(None, "--trace", help="Write a trace for Perfetto here."),
    output_format: str = FORMAT,
) -> None:
    """Replay a plan's actions: the predicted step, rank by rank."""
    from planner.spec import documents, printing
    from planner.spec.plan import Plan
    from planner.spec.units import format_seconds
    from reports import occupancy, runs, tables
    from reports import trace as traces

    printing.check_format(output_format)
    plan = documents.load(Plan, plan_file)
    timeline = runs.simulate(plan)
    if output is not None:
        documents.save(timeline, output)
    if trace is not None:
        traces.write_trace(timeline, trace, layout=plan.layout)
    if output_format == "json":
        printing.print_json(timeline.model_dump(mode="json"))
        return
    rows = occupancy.rank_rows(timeline)
    if output_format == "csv":
        printing.print_csv(rows)
    else:
        title = (
            f"step {format_seconds(timeline.step_seconds)}, {occupancy.bubble(timeline):.1%} idle"
        )
        printing.print_table([tables.readable(row) for row in rows], title)


def compare(
    predicted: Path = typer.Argument(metavar="PREDICTED.json", help="A timeline (simulate -o)."),
    measured: Path = typer.Argument(metavar="MEASURED.json", help="A measurement (run -o)."),
    output_format: str = FORMAT,
) -> None:
    """Put a predicted step beside a measured one, action by action."""
    from planner.spec import printing
    from planner.spec.units import format_seconds
    from reports import comparison, runs, tables
    from reports.verdict import percent

    printing.check_format(output_format)
    found = comparison.compare(runs.read_timeline(predicted), runs.read_timeline(measured))
    if output_format == "json":
        printing.print_json(found.model_dump(mode="json"))
    elif output_format == "csv":
        printing.print_csv(found.to_frame().to_dict("records"))
    else:
        title = (
            f"step: {format_seconds(found.predicted_step_seconds)} predicted, "
            f"{format_seconds(found.measured_step_seconds)} measured ({percent(found.step_error)})"
        )
        printing.print_table([tables.readable(kind.model_dump()) for kind in found.kinds], title)
        if found.peaks:
            peaks = [tables.readable(peak.model_dump()) for peak in found.peaks]
            printing.print_table(peaks, "peak memory")
        typer.echo(
            f"{found.matched} actions in both, {found.only_predicted} only predicted, "
            f"{found.only_measured} only measured",
            err=True,
        )


def report(
    source: Path = typer.Argument(
        metavar="PLAN.json|RUN_DIR",
        help="A plan, or a folder of plan-*.json, timeline-*.json and measured-*.json.",
    ),
    output: Path = typer.Option(..., "-o", "--output", help="The HTML file to write."),
    predicted: Path | None = typer.Option(
        None, "--predicted", help="Predicted timeline of the plan (default: simulate it)."
    ),
    measured: Path | None = typer.Option(None, "--measured", help="Measurement of the plan."),
    title: str | None = typer.Option(None, "--title", help="Heading of the page."),
) -> None:
    """Write one self-contained HTML page: plans, figures, errors, reasons."""
    from planner.spec.documents import InputError
    from reports import page, runs

    if source.is_dir():
        if predicted is not None or measured is not None:
            raise InputError(
                f"{source} is a folder: its timeline-*.json and measured-*.json are read; "
                "--predicted and --measured belong to a single PLAN.json"
            )
        results = runs.read_runs(source)
    else:
        results = [runs.read_result(source, predicted, measured)]
    heading = title or page.default_title(results)
    page.write_page(results, output, heading)
    typer.echo(f"wrote {output}", err=True)


def validate(
    files: list[Path] = typer.Argument(
        metavar="RUNS.csv...", help="Measured runs, one per row (columns: planner/catalog/runs)."
    ),
    runtime: str | None = typer.Option(
        None, "--runtime", help="The software that ran, instead of the runtime column."
    ),
    where: str | None = typer.Option(
        None, "--where", help='Which rows: "n_gpus<=64 and mfu_pct>=10".'
    ),
    calibration: str | None = typer.Option(
        None,
        "--calibration",
        help="calibration.json for all, or none (default: the catalog's).",
    ),
    figure: Path | None = typer.Option(
        None, "--figure", help="Write predicted over measured here (.svg or .png)."
    ),
    output_format: str = FORMAT,
) -> None:
    """Predict measured runs of others or your own, and say how far off the predictions are."""
    from planner.spec import printing
    from reports.validation import validation

    printing.check_format(output_format)
    found = validation.validate_files(files, runtime, where, calibration)
    if figure is not None:
        from reports.figures.validation import plot_validation, write_figure

        typer.echo(f"wrote {write_figure(plot_validation(found), figure)}", err=True)
    if output_format == "json":
        printing.print_json(found.to_json())
    elif output_format == "csv":
        rows = found.prediction_rows()
        printing.print_csv([{**row, "notes": "; ".join(row["notes"])} for row in rows])
    else:
        _print_validation(found)


def calibrate(
    source: Path = typer.Argument(
        metavar="RUNS.csv|profile.json", help="Your measured runs, or a profile of a device."
    ),
    output: Path = typer.Option(..., "-o", "--output", help="Write the calibration here."),
    runtime: str | None = typer.Option(
        None, "--runtime", help="The software that ran, instead of the runtime column."
    ),
    where: str | None = typer.Option(None, "--where", help='Which rows: "n_gpus<=64".'),
    start: str | None = typer.Option(
        None, "--start", help="ACCELERATOR--RUNTIME of the catalog, a path, or none."
    ),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Fit the constants of your cluster to a dozen of your runs (plan --calibration takes it)."""
    from planner.spec import documents, printing
    from reports import calibration

    printing.check_format(output_format, ("table", "json"))
    documents.check_place(output)
    found = calibration.calibrate(source, runtime, where, start)
    documents.save(found.calibration, output)
    if output_format == "json":
        printing.print_json(found.to_json())
        return
    printing.print_table(calibration.constant_rows(found), calibration.headline(found))
    if found.errors:
        printing.print_table(calibration.error_rows(found), "how well it predicts")
    typer.echo(f"wrote {output}", err=True)


def _print_validation(found: Any) -> None:
    from planner.spec import printing
    from reports.validation import tables

    title = f"{len(found.outcomes)} of {found.rows} rows used; step time, and two baselines"
    printing.print_table(tables.time_rows(found), title)
    if order := tables.order_rows(found):
        printing.print_table(order, "order of the layouts of one question")
    if memory := tables.memory_rows(found):
        printing.print_table(memory, "peak memory, and failures told by it")
    if found.skipped:
        printing.print_table(tables.count_rows(found.skipped, "skipped because"))
    if assumed := found.assumptions():
        printing.print_table(tables.count_rows(assumed, "assumed"))
