"""The demo: profile this machine, plan, run on local ranks, compare, write a report.

The loop that everything else serves, on whatever machine it is started: CPUs with gloo, GPUs
with NCCL. It runs the best plan of every mesh and some variants, and a single process beside
them: the same loss (parity) shows that every plan trains the same model.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from planner.cost.blocks import Blocks
    from planner.spec.measured import Measured
    from planner.spec.plan import Plan
    from planner.spec.profile import Machine, Profile
    from reports.results import PlanResult

WARMUP = 3


@dataclass(frozen=True, slots=True)
class Task:
    """What the demo trains: small enough for a laptop, large enough to be dominated by work."""

    model: str = "tiny-gpt2"
    seq_len: int = 128
    global_batch: int = 16
    micro_batches: str = "1,2,4,8"


def register(app: typer.Typer) -> None:
    """Add the demo to the command line."""
    app.command()(demo)


def demo(
    output: Path = typer.Option("runs/demo", "-o", "--output", help="Folder for the results."),
    ranks: int = typer.Option(
        0, "--ranks", min=0, help="Ranks to run on (default: the devices, >= 2)."
    ),
    plans: int = typer.Option(6, "--plans", min=1, help="How many plans to run."),
    steps: int = typer.Option(12, "--steps", min=1, help="Timed steps of each plan."),
    budget: str = typer.Option("75s", "--budget", help="Time for the profile."),
    output_format: str = typer.Option("table", "--format", help="table or json."),
) -> None:
    """Profile this machine, plan, run, compare and report."""
    from planner.spec import documents, printing
    from reports import runs, tables

    printing.check_format(output_format, ("table", "json"))
    documents.check_place(output / "plan.json")
    result = _demo(Task(), output, ranks, plans, steps, budget)
    if output_format == "json":
        printing.print_json(result)
        return
    printing.console().print(tables.plans_table(runs.read_runs(output), "Plans that were run"))
    for what, path in result["paths"].items():
        printing.console().print(f"{what}: {path if isinstance(path, str) else ', '.join(path)}")


def _demo(
    task: Task, folder: Path, ranks: int, count: int, steps: int, budget: str
) -> dict[str, Any]:
    from planner.search import planning, told_layout
    from planner.spec import documents

    say = _announcer()
    say("profile", f"measuring operators and links of this machine, {budget} at most")
    profile = _profile(task, folder, ranks, budget)
    devices = ranks or _ranks(profile.machine)
    blocks = _ask(task, f"local:{devices}", profile)
    say("plan", f"searching every way to use {devices} ranks")
    ranking, chosen = planning.choose(blocks, top_k=1)
    documents.save(chosen[0], folder / "plan.json")
    several = _several(blocks, ranking.tables, chosen[0], count)
    say("run", "one process alone, the reference of the loss")
    micro_batch = max(plan.layout.micro_batch for plan in several)
    alone = told_layout.plan_of_layout(
        _ask(task, "local:1", profile), f"dp=1 micro_batch={micro_batch}"
    )
    documents.save(_run(alone, steps, 0), folder / "reference.json")
    for index, plan in enumerate(several, start=1):
        say("run", f"plan {index} of {len(several)}: {plan.title}")
        _write(folder, index, plan, _run(plan, steps, WARMUP))
    say("report", "comparing, drawing, writing")
    return _report(folder, len(several))


def _announcer() -> Callable[[str, str], None]:
    """A function that announces a stage on stderr, with the time since the start."""
    from rich.console import Console

    console, start = Console(stderr=True), time.perf_counter()

    def say(stage: str, text: str) -> None:
        elapsed = time.perf_counter() - start
        console.print(f"[dim]{elapsed:6.1f} s[/dim]  [bold]{stage:8}[/bold] {text}")

    return say


def _profile(task: Task, folder: Path, ranks: int, budget: str) -> "Profile":
    """Measure what the task needs, now: an earlier profile would be of another hour."""
    from profiler import answer, machine, question
    from profiler.session import take_profile

    most = ranks or _ranks(machine.describe())
    degrees = ",".join(str(tp) for tp in (1, 2, 4, 8) if tp <= most)
    asked = question.ask(task.model, task.seq_len, task.micro_batches, degrees, None)
    with answer.progress() as show:
        return take_profile(
            asked.requests,
            asked.message_sizes,
            max_ranks=most,
            budget_seconds=question.seconds("--budget", budget),
            reference=asked.reference,
            progress=show,
            checkpoint=folder / "profile.json",
            command="meshwright demo",
        )


def _ranks(machine: "Machine") -> int:
    """Every GPU, or every core; two at least, so that there is something to divide."""
    return max(2, machine.accelerators or machine.cores)


def _ask(task: Task, cluster: str, profile: "Profile") -> "Blocks":
    from planner.search import question

    return question.ask(
        task.model, cluster, task.seq_len, task.global_batch, None, "native", profile
    )


def _several(blocks: "Blocks", tables: Any, best: "Plan", count: int) -> "tuple[Plan, ...]":
    """The best plan, then unlike ones; each once."""
    from planner.search import variety

    others = variety.unlike(blocks, tables, count)
    key = (best.layout, best.layer_counts)
    rest = [plan for plan in others if (plan.layout, plan.layer_counts) != key]
    return (best, *rest[: count - 1])


def _run(plan: "Plan", steps: int, warmup: int) -> "Measured":
    from executor.processes.launch import run_plan

    return run_plan(plan, steps=steps, warmup=warmup)


def _write(folder: Path, index: int, plan: "Plan", measured: "Measured") -> None:
    from planner.spec import documents
    from reports import runs

    documents.save(plan, folder / f"plan-{index}.json")
    documents.save(runs.simulate(plan), folder / f"timeline-{index}.json")
    documents.save(measured, folder / f"measured-{index}.json")


def _report(folder: Path, count: int) -> dict[str, Any]:
    from reports import page, runs, trace

    results = runs.read_runs(folder)
    page.write_page(results, folder / "report.html", "Meshwright demo")
    best = results[0]
    assert best.measured is not None
    trace.write_trace(best.predicted, folder / "trace.json", best.measured.timeline)
    numbers = range(1, count + 1)
    paths = {
        "profile": str(folder / "profile.json"),
        "plan": str(folder / "plan.json"),
        "predicted_timelines": [str(folder / f"timeline-{n}.json") for n in numbers],
        "measured": [str(folder / f"measured-{n}.json") for n in numbers],
        "trace": str(folder / "trace.json"),
        "report": str(folder / "report.html"),
    }
    return {"schema": "demo/1", "plans": [_entry(each) for each in results], "paths": paths}


def _entry(result: "PlanResult") -> dict[str, Any]:
    return {
        "layout": result.plan.layout.model_dump(mode="json"),
        "stages": list(result.plan.layer_counts),
        "predicted_step_seconds": result.predicted_seconds,
        "measured_step_seconds": result.measured_seconds,
        "predicted_peak_bytes": result.predicted_peak_bytes,
        "measured_peak_bytes": result.measured_peak_bytes,
        "loss_parity": result.loss_parity,
    }
