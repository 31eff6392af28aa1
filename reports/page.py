"""Page: one HTML file that shows the results of a question and needs nothing else.

No network, no scripts: figures are inline SVG, each with its data in <details>, and every plan
stands in the page as JSON (<script type="application/json" id="plan-1">), so that a report can be
planned, run and judged again. Equal results give equal bytes. Everything that comes from a
document is escaped.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from planner.graph import counts
from planner.spec.documents import write_text
from planner.spec.plan import Plan
from planner.spec.profile import Machine
from planner.spec.units import format_bytes, format_count, format_seconds
from reports.blocks import (
    Block,
    breakdown_block,
    gantt_block,
    memory_block,
    memory_curve_block,
    scatter_blocks,
)
from reports.comparison import Comparison, compare
from reports.results import PlanResult, machine_of
from reports.tables import HEADINGS, plans_cells, readable
from reports.verdict import percent, verdict

TEMPLATES = Path(__file__).resolve().parent / "templates"
BIRTHS = ("measured", "fitted", "assumed")

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says about one plan."""

    number: int
    name: str
    facts: Facts
    shares: list[tuple[str, float]]
    why: tuple[str, ...]
    gantt: Block
    halves: tuple[Block, ...]
    comparison: Comparison | None
    kinds: list[dict[str, str]]
    json: str


def write_page(results: Sequence[PlanResult], path: Path | str, title: str) -> Path:
    """Write the page of some results. Raises InputError if the file cannot be written."""
    return write_text(path, render_page(results, title))


def render_page(results: Sequence[PlanResult], title: str) -> str:
    """The page as HTML; its machine is the one that ran the plans, or was profiled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    known = machine_of(list(results))
    return environment.get_template("page.html.j2").render(
        title=title,
        verdict=verdict(results),
        question=_question([result.plan for result in results]),
        machine=[] if known is None else _machine(known),
        headings=HEADINGS,
        plans=[_row(r, cells) for r, cells in zip(results, plans_cells(results), strict=True)],
        scatters=scatter_blocks(results),
        sections=[_section(result, number) for number, result in enumerate(results, start=1)],
        version=next((result.plan.version for result in results), ""),
    )


def default_title(results: Sequence[PlanResult]) -> str:
    """`MODEL on CLUSTER`, of the plans' own names."""
    models = _joined(result.plan.model.name for result in results)
    return f"{models} on {_joined(result.plan.cluster.name for result in results)}"


def _row(result: PlanResult, cells: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": cells[0],
        "cells": list(zip(HEADINGS, cells[1:], strict=True)),
        "broken": {"peak measured"} if result.memory_kept is False else set(),
    }


def _question(plans: Sequence[Plan]) -> Facts:
    return [
        ("Model", _joined(_model(plan) for plan in plans)),
        ("Workload", _joined(_workload(plan) for plan in plans)),
        ("Cluster", _joined(_cluster(plan) for plan in plans)),
        ("Runtime", _joined(plan.runtime.name for plan in plans)),
        ("Plans", str(len(plans))),
    ]


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _model(plan: Plan) -> str:
    size = format_count(counts.parameters(plan.model))
    return f"{plan.model.name}, {size} parameters, {plan.model.layers} layers"


def _workload(plan: Plan) -> str:
    work = plan.workload
    return f"{work.global_batch} sequences of {work.seq_len:,} tokens per step, {work.dtype}"


def _cluster(plan: Plan) -> str:
    cluster = plan.cluster
    return f"{cluster.name}: {cluster.devices} × {cluster.accelerator.name}"


def _machine(machine: Machine) -> Facts:
    facts = [("Processor", f"{machine.processor}, {machine.cores} cores")]
    facts.append(("Memory", format_bytes(machine.memory_bytes)))
    if machine.accelerator is not None:
        facts.append(("Accelerators", f"{machine.accelerators} × {machine.accelerator}"))
    software = [machine.operating_system]
    software += [f"Python {machine.python}"] if machine.python else []
    software += [f"PyTorch {machine.torch}"] if machine.torch else []
    facts.append(("Software", ", ".join(text for text in software if text)))
    return [(name, text) for name, text in facts if text]


def _section(result: PlanResult, number: int) -> Section:
    halves = (
        breakdown_block(result, f"breakdown-{number}"),
        memory_block(result, f"memory-{number}"),
        memory_curve_block(result, f"curve-{number}"),
    )
    comparison = _comparison(result)
    return Section(
        number=number,
        name=result.name,
        facts=_facts(result),
        shares=_shares(result.plan),
        why=result.plan.why,
        gantt=gantt_block(result, f"gantt-{number}"),
        halves=tuple(block for block in halves if block is not None),
        comparison=comparison,
        kinds=[readable(kind.model_dump()) for kind in comparison.kinds] if comparison else [],
        json=embedded_json(result.plan),
    )


def _comparison(result: PlanResult) -> Comparison | None:
    if result.measured is None or result.measured.timeline is None:
        return None
    return compare(result.predicted, result.measured.timeline)


def _facts(result: PlanResult) -> Facts:
    plan = result.plan
    layers = "+".join(map(str, plan.layer_counts)) if len(plan.stages) > 1 else ""
    facts = [
        ("Step predicted", format_seconds(result.predicted_seconds)),
        ("Step measured", _spread(result)),
        ("Error", "" if result.error is None else percent(result.error)),
        ("Memory promise", {True: "kept", False: "broken", None: ""}[result.memory_kept]),
        ("Ranks", str(plan.layout.devices)),
        ("Microbatches", str(plan.microbatches)),
        ("Layers per stage", layers),
    ]
    return [(name, text) for name, text in facts if text]


def _spread(result: PlanResult) -> str:
    if result.measured is None:
        return ""
    times = result.measured.step_seconds
    low, high = format_seconds(times.min), format_seconds(times.max)
    return f"{format_seconds(times.median)} ({low} to {high}, {len(times.steps)} steps)"


def _shares(plan: Plan) -> list[tuple[str, float]]:
    if plan.predicted is None:
        return []
    shares = plan.predicted.provenance
    return [(birth, share) for birth in BIRTHS if (share := getattr(shares, birth)) > 0]


def embedded_json(plan: Plan) -> str:
    """The plan as JSON that cannot end the <script> element it stands in."""
    text = json.dumps(plan.model_dump(mode="json"), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
