"""The ledger: what the planner says one rank sends and holds, beside what its program does.

    meshwright ledger plan.json --rank r

The planner counts messages on its graph (planner.ledger.messages) and bytes moment by moment
(planner.ledger.moments); the executor runs the program of that rank without its work, however many
ranks the plan has (executor.alone.ledger). Messages must agree exactly.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from planner.spec.ledger import Ledger
    from planner.spec.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the ledger to the command line."""
    app.command()(ledger)


def ledger(
    plan: Path = typer.Argument(help="plan.json, as `meshwright plan -o` writes it."),
    rank: int = typer.Option(0, "--rank", help="The rank whose program is run."),
    output: Path | None = typer.Option(None, "-o", "--output", help="Write both to this file."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Compare what one rank of a plan sends and holds with what the planner says.

    Exit code 1 where a message differs.
    """
    from planner.spec import documents, printing
    from planner.spec.plan import Plan

    printing.check_format(output_format, ("table", "json"))
    if output is not None:
        documents.check_place(output)
    found = documents.load(Plan, plan)
    # a large plan's program takes minutes
    typer.echo(f"recording what rank {rank} of {found.title} sends and holds ...", err=True)
    predicted, recorded = ledgers(found, rank)
    result = as_json(predicted, recorded)
    if output is not None:
        documents.write_text(output, json.dumps(result, indent=1) + "\n")
        typer.echo(f"wrote {output}", err=True)
    if output_format == "json":
        printing.print_json(result)
    else:
        printing.print_table(rows(predicted, recorded), title(predicted, recorded))
    if result["differences"]:
        raise typer.Exit(1)


def foresee(plan: "Plan", rank: int) -> "Ledger":
    """What one rank of a plan is predicted to send and hold."""
    from planner.cost.blocks import Blocks
    from planner.ledger.messages import predicted_ledger

    return predicted_ledger(Blocks.of_plan(plan), plan, rank)


def ledgers(plan: "Plan", rank: int) -> "tuple[Ledger, Ledger]":
    """Both ledgers of a rank. Raises InputError for a plan or rank that cannot be run."""
    from executor.alone.ledger import device_kind, recorded_ledger
    from planner.cost.blocks import Blocks
    from planner.ledger.messages import predicted_ledger

    recorded = recorded_ledger(plan, rank)
    # the kernels of the device on which the program was recorded decide what it keeps
    device = plan.cluster.accelerator.replace(kind=device_kind())
    there = plan.replace(cluster=plan.cluster.replace(accelerator=device))
    return predicted_ledger(Blocks.of_plan(there), plan, rank), recorded


def rows(predicted: "Ledger", recorded: "Ledger") -> list[dict[str, Any]]:
    """One row per kind of message, then one for the peak."""
    from planner.spec import units
    from planner.spec.ledger import both

    found: list[dict[str, Any]] = [
        {
            "part": part,
            "message": op,
            "group": f"{group} ({ranks})",
            "bytes": f"{size:,}",
            "predicted": f"{ahead:,}",
            "recorded": f"{seen:,}",
            "agree": "yes" if ahead == seen else "NO",
        }
        for (part, op, group, ranks, size), ahead, seen in both(predicted, recorded)
    ]
    ahead, seen = predicted.peak_bytes, recorded.peak_bytes
    peak = dict.fromkeys(found[0] if found else PEAK, "")
    peak |= {
        "part": "peak memory",
        "predicted": units.format_bytes(ahead),
        "recorded": units.format_bytes(seen),
        "agree": f"{ahead / seen - 1:+.1%}",
    }
    return [*found, peak]


PEAK = ("part", "predicted", "recorded", "agree")


def title(predicted: "Ledger", recorded: "Ledger") -> str:
    """One line: which rank of what, and whether its messages agree."""
    from planner.spec.ledger import both

    lines = list(both(predicted, recorded))
    wrong = sum(ahead != seen for _, ahead, seen in lines)
    said = "all agree" if not wrong else f"{wrong} DIFFER"
    return f"rank {recorded.rank} of {recorded.title}: {len(lines)} kinds of messages, {said}"


def as_json(predicted: "Ledger", recorded: "Ledger") -> dict[str, Any]:
    """Both ledgers and what differs, as one value."""
    from planner.spec.ledger import both

    keys = ("part", "op", "group", "ranks", "message_bytes")
    unpredicted = {"messages": {"__all__": {"seconds"}}}
    return {
        "schema": "ledgers/1",
        "predicted": predicted.model_dump(mode="json"),
        "recorded": recorded.model_dump(mode="json", exclude=unpredicted),
        "differences": [
            dict(zip(keys, line, strict=True)) | {"predicted": ahead, "recorded": seen}
            for line, ahead, seen in both(predicted, recorded)
            if ahead != seen
        ],
        "peak_ratio": predicted.peak_bytes / recorded.peak_bytes,
    }
