"""Breakdown: into what the seconds of a step divide, one stacked bar per account of it."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from planner.spec.plan import Plan
from planner.spec.timeline import Timeline
from reports.figures.canvas import (
    HALF_HEIGHT_INCHES,
    HALF_INCHES,
    INK,
    SMALL_POINTS,
    add_legend,
    add_note,
    dress,
    kind_patches,
    new_axes,
)
from reports.figures.scales import Scale, time_scale
from reports.kinds import colour_of
from reports.occupancy import busiest_rank, seconds_by_kind

ORDER = (
    "forward",
    "backward",
    "tensor_parallel",
    "contention",
    "gradients",
    "optimizer",
    "other",
    "pipeline",
    "stragglers",
    "runtime",
)
LABEL_SHARE = 0.055
"""The least share of the longest bar that a part needs to carry its number."""

Parts = Mapping[str, float]


def breakdowns(
    plan: Plan, predicted: Timeline, measured: Timeline | None = None
) -> dict[str, dict[str, float]]:
    """Accounts of the step by name: the cost model's split, the replay's and the run's.

    The last two are exposed seconds of the rank that computes longest in the prediction.
    """
    accounts: dict[str, dict[str, float]] = {}
    if plan.predicted is not None:
        accounts["predicted\n(cost model)"] = dict(plan.predicted.breakdown)
    rank = busiest_rank(predicted)
    accounts[f"predicted\n(rank {rank})"] = seconds_by_kind(predicted, rank)
    if measured is not None:
        accounts[f"measured\n(rank {rank})"] = seconds_by_kind(measured, rank)
    return accounts


def plot_breakdown(accounts: Mapping[str, Parts], ax: Axes | None = None) -> Axes:
    """Stacked bars of seconds by part; names of the accounts at the left."""
    if ax is None:
        ax = new_axes(HALF_INCHES, HALF_HEIGHT_INCHES)
    longest = max((sum(parts.values()) for parts in accounts.values()), default=0.0)
    scale = time_scale(longest)
    for row, parts in enumerate(accounts.values()):
        _bar(ax, row, parts, scale, longest)
    dress(ax, "where the step goes", f"seconds of the step ({scale.unit})", grid="x")
    ax.set_ylim(len(accounts) - 0.4, -0.6)
    ax.set_yticks(range(len(accounts)), list(accounts))
    ax.set_xlim(0.0, scale.of(longest) * 1.25)
    used = {kind for parts in accounts.values() for kind, s in parts.items() if s > 0}
    kinds = [kind for kind in ORDER if kind in used] + sorted(used - set(ORDER))
    add_legend(ax, kind_patches(kinds))
    return ax


def _bar(ax: Axes, row: int, parts: Parts, scale: Scale, longest: float) -> None:
    known = [kind for kind in ORDER if kind in parts]
    left = 0.0
    for kind in known + sorted(set(parts) - set(ORDER)):
        width = scale.of(max(parts[kind], 0.0))
        ax.barh(row, width, 0.62, left, color=colour_of(kind), edgecolor="white", linewidth=0.6)
        if parts[kind] > LABEL_SHARE * longest:
            _inside(ax, left + width / 2, row, f"{width:.3g}", kind)
        left += width
    total = scale.text(sum(parts.values()))
    add_note(ax, total, (left, row), (4, -3), "left")


def _inside(ax: Axes, x: float, y: float, text: str, kind: str) -> None:
    dark = kind in ("forward", "gradients", "optimizer", "weights")
    colour = "white" if dark else INK
    ax.text(x, y, text, ha="center", va="center", fontsize=SMALL_POINTS, color=colour)
