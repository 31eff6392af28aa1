"""The profiler's commands: profile, capture, import.

Only typer is imported here; everything else loads inside the command, for start-up time.
"""

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the profiler's commands to the command line."""
    app.command()(profile)
    app.command()(capture)
    app.command(name="import")(import_)


def profile(
    output: Path = typer.Option(Path("profile.json"), "-o", "--output", help="Where to write it."),
    budget: str = typer.Option("60s", "--budget", help="Time to spend, such as 60s or 5min."),
    model: str | None = typer.Option(None, "--model", help="Measure what this model needs."),
    seq_len: int = typer.Option(128, "--seq-len", min=1, help="Tokens per sequence."),
    micro_batch: str = typer.Option("1,2,4", "--micro-batch", help="Microbatch sizes."),
    tp: str = typer.Option("1,2", "--tp", help="Tensor-parallel degrees."),
    dtype: str | None = typer.Option(None, "--dtype", help="fp32, bf16, ... (default: by device)."),
    ranks: int | None = typer.Option(
        None, "--ranks", min=1, help="Most ranks in a collective (default: all GPUs, 2 on a CPU)."
    ),
    resume: Path | None = typer.Option(
        None, "--resume", help="Continue this profile.json (default: the output, if there is one)."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Measure all anew, continue nothing."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Measure this machine: operators, collectives, overlap, launch cost, shared cores.

    Stops when the budget is spent, what tells most first; run it again to continue.
    """
    from planner.spec import documents, printing
    from profiler import answer, machine, question
    from profiler.session import take_profile

    printing.check_format(output_format, ("table", "json"))
    documents.check_place(output)
    earlier = question.previous(output, resume, fresh)
    asked = question.ask(model, seq_len, micro_batch, tp, dtype)
    with answer.progress() as show:
        taken = take_profile(
            asked.requests,
            asked.message_sizes,
            max_ranks=ranks or machine.describe().accelerators or 2,
            budget_seconds=question.seconds("--budget", budget),
            reference=asked.reference,
            designed=asked.grid,
            previous=earlier,
            progress=show,
            checkpoint=output,
            command=f"meshwright profile {model or ''}".strip(),
        )
    if output_format == "json":
        printing.print_json(taken.model_dump(mode="json"))
    else:
        answer.print_profile(taken)
    typer.echo(f"{answer.remainder(taken)}wrote {output}", err=True)


def capture(
    entry: str = typer.Argument(metavar="MODULE:FUNCTION", help="Builds (module, inputs)."),
    output: Path = typer.Option(Path("graph.json"), "-o", "--output", help="Where to write it."),
    name: str = typer.Option("", "--name", help="Name of the graph (default: the class)."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Turn any torch module into a graph document, without weights, download or GPU.

    FUNCTION takes no arguments and returns (module, args), (module, kwargs) or
    (module, args, kwargs). MODULE is an importable module or a .py file.
    """
    from planner.spec import documents, printing
    from profiler.capture import answer
    from profiler.capture.document import capture_entry

    printing.check_format(output_format, ("table", "json"))
    documents.check_place(output)
    graph = capture_entry(entry, name=name)
    documents.save(graph, output)
    if output_format == "json":
        printing.print_json(graph.model_dump(mode="json"))
    else:
        answer.print_graph(graph)
    typer.echo(f"wrote {output}", err=True)


def import_(
    words: list[str] = typer.Argument(
        metavar="[FORMAT] FILE...",
        help="nccl-tests, nccl-topology, nvidia-smi-topo, kineto, calculon, simumax or galvatron "
        "(default: by content), and files of it.",
    ),
    output: Path | None = typer.Option(None, "-o", "--output", help="Write the document here."),
    nodes: int | None = typer.Option(None, "--nodes", min=1, help="Equal nodes of the cluster."),
    per_node: int | None = typer.Option(
        None, "--devices-per-node", min=1, help="Where the file does not say it."
    ),
    ranks: int | None = typer.Option(None, "--ranks", min=2, help="Of an nccl-tests run."),
    op: str | None = typer.Option(None, "--op", help="Test of an nccl-tests text: all_reduce, ..."),
    accelerator: str | None = typer.Option(
        None, "--accelerator", help="Catalog name of the device, where the file does not say it."
    ),
    nic_speed: str | None = typer.Option(None, "--nic-speed", help="Of one network card: 400Gb/s."),
    target: str | None = typer.Option(
        None, "--as", help="profile, cluster or accelerator, of a file that holds several."
    ),
    vocab: int | None = typer.Option(None, "--vocab", min=2, help="Of a Calculon model."),
    into: Path | None = typer.Option(None, "--into", help="Add to this profile.json."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Make a profile, cluster or model of another tool's files."""
    from planner.spec import documents, printing
    from planner.spec.profile import Profile
    from profiler.imports import answer, formats, merge, outcome

    printing.check_format(output_format, ("table", "json"))
    chosen, paths = formats.split_words(words)
    wanted = outcome.Wanted(
        nodes=nodes,
        devices_per_node=per_node,
        ranks=ranks,
        accelerator=accelerator,
        nic_bytes_per_second=outcome.read_rate("--nic-speed", nic_speed),
        op=op,
        target=outcome.read_target(target),
        vocab=vocab,
    )
    made = formats.import_files(paths, wanted, chosen)
    document = made.document
    if into is not None:
        document = merge.into(documents.load(Profile, into), document, str(into))
    for note in made.notes:
        typer.echo(note, err=True)
    if output is not None:
        documents.save(document, output)
        typer.echo(f"wrote {output} ({document.SCHEMA})", err=True)
    if output_format == "json":
        printing.print_json(document.model_dump(mode="json"))
    else:
        answer.print_tables(document)
