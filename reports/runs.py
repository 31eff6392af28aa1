"""Runs: the documents of a finished question, read from disk.

A run directory holds, for every plan with a name of your choice (`1`, `dp2-tp2`):

    plan-NAME.json        plan/1
    timeline-NAME.json    timeline/1, predicted; simulated from the plan where it is absent
    measured-NAME.json    measured/1, if the plan ran
    reference.json        measured/1 of the same model and workload on one rank, for loss parity

Plans come in natural order of their names (2 before 10).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.cost.blocks import Blocks
from planner.simulator.timeline import timeline
from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.measured import Measured
from planner.spec.plan import Plan
from planner.spec.timeline import Timeline
from reports.results import PlanResult, loss_parity


def read_runs(folder: Path) -> list[PlanResult]:
    """Every plan of a run directory with its documents. Raises InputError."""
    plans = sorted(folder.glob("plan-*.json"), key=lambda path: _natural(path.stem))
    if not plans:
        raise InputError(f"{folder}: holds no plan-NAME.json; write one with `meshwright plan -o`")
    reference = _if_there(folder / "reference.json")
    return [
        read_result(
            path,
            _if_there(path.with_name(path.name.replace("plan-", "timeline-", 1))),
            _if_there(path.with_name(path.name.replace("plan-", "measured-", 1))),
            reference,
        )
        for path in plans
    ]


def read_result(
    plan_file: Path,
    predicted_file: Path | None = None,
    measured_file: Path | None = None,
    reference_file: Path | None = None,
) -> PlanResult:
    """One plan with its documents; without a predicted timeline it is simulated.

    Raises InputError, also when the run is one of another layout.
    """
    plan = documents.load(Plan, plan_file)
    predicted = simulate(plan) if predicted_file is None else read_timeline(predicted_file)
    measured = None if measured_file is None else documents.load(Measured, measured_file)
    if measured is not None and measured.layout != plan.layout:
        raise InputError(
            f"{measured_file}: layout: {measured.layout} was run, {plan_file} plans "
            f"{plan.layout}; give the measurement of this plan"
        )
    parity = None
    if measured is not None and reference_file is not None:
        parity = loss_parity(measured, documents.load(Measured, reference_file))
    return PlanResult(plan, predicted, measured, parity)


def simulate(plan: Plan) -> Timeline:
    """The predicted timeline of a plan, replayed from what the plan carries."""
    return timeline(Blocks.of_plan(plan), plan)


def read_timeline(path: Path) -> Timeline:
    """The timeline of a timeline/1 document or of a measured/1 that recorded one.

    Raises InputError.
    """
    data = documents.read_mapping(path)
    if data.get("schema") == Measured.SCHEMA:
        return _recorded(data, path)
    if data.get("schema") != Timeline.SCHEMA:
        raise InputError(
            f"{path}: schema: {data.get('schema')!r} holds no timeline; give {Timeline.SCHEMA} "
            f"(meshwright simulate -o) or {Measured.SCHEMA} (meshwright run -o)"
        )
    return documents.parse(Timeline, data, str(path))


def _recorded(data: Mapping[str, Any], path: Path) -> Timeline:
    measured = documents.parse(Measured, data, str(path))
    if measured.timeline is None:
        raise InputError(f"{path}: timeline: none was recorded; run the plan again and record one")
    if measured.timeline.peak_bytes:
        return measured.timeline
    return measured.timeline.replace(peak_bytes=measured.peak_bytes)


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Runs of digits compare as numbers."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]
