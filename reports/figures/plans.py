"""Plans: the table of plans as a figure, for slides and notebooks."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from reports.figures.canvas import RULE, TEXT_POINTS, new_axes
from reports.results import PlanResult
from reports.tables import HEADINGS, plans_cells

PLAN_WIDTH = 0.38


def plot_plans(results: Sequence[PlanResult], ax: Axes | None = None) -> Axes:
    """One row per plan: layout, step time, error, peak memory and loss parity."""
    if ax is None:
        ax = new_axes(13.0, 0.5 + 0.28 * len(results))
    ax.set_axis_off()
    rest = (1.0 - PLAN_WIDTH) / len(HEADINGS)
    table = ax.table(
        cellText=[list(row) for row in plans_cells(results)],
        colLabels=["plan", *HEADINGS],
        colWidths=[PLAN_WIDTH, *[rest] * len(HEADINGS)],
        cellLoc="right",
        loc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(TEXT_POINTS)
    for (row, column), cell in table.get_celld().items():
        cell.set(edgecolor=RULE, linewidth=0.6)
        cell.visible_edges = "B"
        cell.PAD = 0.02 if column == 0 else 0.05
        cell.set_text_props(
            ha="left" if column == 0 else "right", weight="bold" if row == 0 else "normal"
        )
    return ax
