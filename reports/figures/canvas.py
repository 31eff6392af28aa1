"""Canvas: figures without pyplot's global state, and the look that all figures share.

Every plot takes ax= and returns it; without one it draws on a figure of its own. Figures are
plain matplotlib.figure.Figure objects: they need no display and are freed with their last name.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.kinds import colour_of, label_of

INK = "#222222"
QUIET = "#666666"
RULE = "#D9D9D9"
TEXT_POINTS = 9.0
TITLE_POINTS = 10.5
SMALL_POINTS = 8.0

WIDE_INCHES = 11.0
HALF_INCHES = 5.4
HALF_HEIGHT_INCHES = 3.3

Pair = tuple[float, float]
Side = Literal["left", "center", "right"]


def new_axes(width_inches: float, height_inches: float) -> Axes:
    """Axes on a new figure."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    return figure.subplots()


def new_row(width_inches: float, height_inches: float, count: int) -> tuple[Axes, ...]:
    """Axes beside each other."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    return tuple(figure.subplots(1, count, squeeze=False)[0])


def new_stack(
    width_inches: float, height_inches: float, shares: Sequence[float]
) -> tuple[Axes, ...]:
    """Axes above each other that share their x axis, with the given shares of the height."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    grid = figure.subplots(
        len(shares), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(shares)}
    )
    return tuple(grid[:, 0])


def dress(ax: Axes, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "y") -> Axes:
    """Titles to the left, no box, quiet grid lines behind the data."""
    ax.set_title(title, loc="left", fontsize=TITLE_POINTS, color=INK, pad=8)
    ax.set_xlabel(xlabel, fontsize=TEXT_POINTS, color=INK)
    ax.set_ylabel(ylabel, fontsize=TEXT_POINTS, color=INK)
    ax.tick_params(labelsize=TEXT_POINTS, colors=INK, length=3, width=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set(color=QUIET, linewidth=0.6)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(visible=True, axis=grid, color=RULE, linewidth=0.6)  # type: ignore[arg-type]
    return ax


def kind_patches(kinds: Iterable[str]) -> list[Artist]:
    """Legend entries of kinds of time or purposes of memory."""
    return [Patch(color=colour_of(kind), label=label_of(kind)) for kind in kinds]


def add_legend(ax: Axes, handles: Iterable[Artist], handle_length: float = 1.0) -> None:
    """A legend to the right of the axes, where it covers no data."""
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=TEXT_POINTS,
        frameon=False,
        handlelength=handle_length,
        handleheight=1.0,
        labelcolor=INK,
        borderaxespad=0.4,
    )


def add_note(
    ax: Axes, text: str, at: Pair, offset_points: Pair, side: Side = "center", colour: str = INK
) -> None:
    """Small text beside a point of the data."""
    ax.annotate(
        text,
        at,
        offset_points,
        textcoords="offset points",
        ha=side,
        fontsize=SMALL_POINTS,
        color=colour,
    )
