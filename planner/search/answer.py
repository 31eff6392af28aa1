"""Answer: a ranking as the documents and rows that users read (`plans/1`)."""

from typing import Any

from planner.search.ranking import Ranking
from planner.spec.layout import Layout
from planner.spec.plan import Plan, Prediction
from planner.spec.units import format_bytes, format_interval, format_seconds

LAYOUT_KEYS = (
    "dp",
    "tp",
    "pp",
    "cp",
    "ep",
    "vpp",
    "micro_batch",
    "zero",
    "recompute",
    "schedule",
)
SELDOM = ("etp", "cp_style", "shard", "sync", "axis_order")
"""Keys of a layout that are printed where they are not the usual value."""


def plans_json(ranking: Ranking, plans: tuple[Plan, ...]) -> dict[str, Any]:
    """The `plans/1` value: best plan, alternatives, what the search did and why."""
    return {
        "schema": "plans/1",
        "best": plan_json(plans[0]),
        "alternatives": [plan_json(plan) for plan in plans[1:]],
        "search": {
            **_tally(ranking),
            "candidates": ranking.candidates,
            "fitting": ranking.fitting,
            "at_risk": ranking.fitting - ranking.safe,
            "replayed": ranking.replayed,
            "lower_bound_seconds": ranking.lower_bound_seconds,
            "gap": ranking.gap,
            "proven": ranking.proven,
            "claim": ranking.claim,
            "wall_seconds": ranking.wall_seconds,
            "cpu_seconds": ranking.cpu_seconds,
        },
        "why": list(plans[0].why),
    }


def _tally(ranking: Ranking) -> dict[str, Any]:
    """What became of the outer choices of an exact search."""
    if ranking.outcome is None:
        return {}
    tally = ranking.outcome.tally
    return {
        "enumerated": tally.enumerated,
        "over_memory": tally.impossible,
        "bounded_away": tally.bounded,
        "solved": tally.solved,
        "solved_in_family": tally.family,
        "stopped_early": tally.stopped,
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """One plan: layout, stages and prediction."""
    layout = plan.layout.model_dump(mode="json")
    return {
        "layout": {key: layout[key] for key in LAYOUT_KEYS} | _seldom(plan),
        "stages": [stage.model_dump(mode="json") for stage in plan.stages],
        "predicted": plan.predicted.model_dump(mode="json") if plan.predicted else None,
    }


def _seldom(plan: Plan) -> dict[str, Any]:
    usual, layout = Layout(), plan.layout
    other = [key for key in SELDOM if getattr(layout, key) != getattr(usual, key)]
    values = {key: getattr(layout, key) for key in other}
    return values | ({"axis_order": "-".join(layout.axis_order)} if "axis_order" in other else {})


def plan_rows(plans: tuple[Plan, ...]) -> list[dict[str, Any]]:
    """One row per plan for people."""
    return [_row(plan) for plan in plans]


def _row(plan: Plan) -> dict[str, Any]:
    assert plan.predicted is not None
    promised = plan.predicted
    return {
        "plan": plan.title,
        "step": format_seconds(promised.step_seconds),
        "8 of 10": _band(promised),
        "tokens/s/device": f"{promised.tokens_per_second_per_device:,.0f}",
        "MFU": "" if promised.mfu is None else f"{promised.mfu:.1%}",
        "peak memory": format_bytes(promised.peak_bytes),
        "safe side": _bytes(promised.safe_peak_bytes),
        "of": format_bytes(promised.capacity_bytes),
        "runs out": _chance(promised.run_out_probability),
        "fits": "NO" if not promised.fits else "at risk" if promised.at_risk else "yes",
    }


def _band(promised: Prediction) -> str:
    if promised.low_seconds is None or promised.high_seconds is None:
        return ""
    return format_interval(promised.low_seconds, promised.high_seconds)


def _bytes(size: float | None) -> str:
    return "" if size is None else format_bytes(size)


def _chance(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.0%}"


def prediction_rows(plan: Plan) -> list[dict[str, Any]]:
    """The split of one plan's time and memory for people."""
    assert plan.predicted is not None
    promised = plan.predicted
    rows = [
        {"what": name, "amount": format_seconds(s), "share": f"{s / promised.step_seconds:.1%}"}
        for name, s in promised.breakdown.items()
    ]
    return rows + [
        {"what": name, "amount": format_bytes(b), "share": f"{b / promised.peak_bytes:.1%}"}
        for name, b in promised.memory.items()
    ]
