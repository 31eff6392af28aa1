"""Gantt: who does what when. One row per rank, time to the right, idle time stays white.

Compute, reduction and update are full bars with their microbatch; sends and receives are thin
ones, because a receive is mostly waiting.
"""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from planner.spec.timeline import Span, Timeline
from reports.figures.canvas import (
    INK,
    SMALL_POINTS,
    WIDE_INCHES,
    add_legend,
    dress,
    kind_patches,
    new_axes,
    new_stack,
)
from reports.figures.scales import Scale, time_scale
from reports.kinds import COMMUNICATION, KINDS, action_of, colour_of, kind_of
from reports.occupancy import bubble, shown_ranks, stage_by_rank

ROW_INCHES = 0.34
BAR, THIN_BAR = 0.78, 0.26
RASTER_FROM = 4000
"""More bars than that become an image inside the SVG, which would be megabytes otherwise."""

EDGES_UP_TO = 600
"""With more bars than that, white edges would hide the narrow ones."""

LABEL_SHARE = 0.014
"""The least share of the axis that a bar needs to carry its microbatch."""


def plot_gantt(timeline: Timeline, ax: Axes | None = None) -> Axes:
    """The spans of one timeline, its ranks (all, or one per stage) in rows from the top."""
    rows = shown_ranks(timeline)
    if ax is None:
        ax = new_axes(WIDE_INCHES, 1.1 + ROW_INCHES * len(rows))
    scale = time_scale(timeline.step_seconds)
    kinds = _draw(ax, timeline, rows, scale, timeline.step_seconds)
    ax.set_xlabel(f"time in the step ({scale.unit})")
    _legend(ax, kinds)
    return ax


def plot_gantt_pair(
    predicted: Timeline, measured: Timeline, axes: tuple[Axes, Axes] | None = None
) -> tuple[Axes, Axes]:
    """The prediction above the measurement, on one time axis."""
    rows = shown_ranks(predicted)
    if axes is None:
        height = 1.8 + 2 * ROW_INCHES * len(rows)
        upper, lower = new_stack(WIDE_INCHES, height, (1.0, 1.0))
    else:
        upper, lower = axes
    longest = max(predicted.step_seconds, measured.step_seconds)
    scale = time_scale(longest)
    kinds = _draw(upper, predicted, rows, scale, longest)
    kinds |= _draw(lower, measured, rows, scale, longest)
    lower.set_xlabel(f"time in the step ({scale.unit})")
    _legend(upper, kinds)
    return upper, lower


def _draw(
    ax: Axes, timeline: Timeline, rows: Sequence[int], scale: Scale, longest: float
) -> set[str]:
    """Draw one timeline; returns the kinds that appear."""
    spans = [s for s in timeline.spans if s.rank in set(rows) and s.stream != "tp"]
    for kind in KINDS:
        _bars(ax, [s for s in spans if kind_of(s) == kind], kind, rows, scale, len(spans))
    _microbatches(ax, spans, rows, scale, longest)
    step = scale.text(timeline.step_seconds)
    title = f"{timeline.kind}: {step}, bubble {bubble(timeline, rows):.0%}"
    dress(ax, title, grid="x")
    ax.axvline(scale.of(timeline.step_seconds), color=INK, linewidth=0.9, linestyle="--")
    ax.set_xlim(0.0, scale.of(longest) * 1.005)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), _row_names(timeline, rows))
    return {kind_of(span) for span in spans}


def _legend(ax: Axes, kinds: Iterable[str]) -> None:
    """Sends and receives share one entry; kinds come in the order of a step."""
    known = sorted(set(kinds), key=KINDS.index)
    add_legend(ax, kind_patches(dict.fromkeys(map(_legend_kind, known))))


def _legend_kind(kind: str) -> str:
    return "transfer" if kind in COMMUNICATION else kind


def _row_names(timeline: Timeline, rows: Sequence[int]) -> list[str]:
    stages = stage_by_rank(timeline)
    if len(set(stages.values())) < 2:
        return [f"rank {rank}" for rank in rows]
    return [f"rank {rank}, stage {stages.get(rank, '?')}" for rank in rows]


def _bars(
    ax: Axes, spans: list[Span], kind: str, rows: Sequence[int], scale: Scale, total: int
) -> None:
    height = THIN_BAR if kind in COMMUNICATION else BAR
    for row, rank in enumerate(rows):
        bars = [
            (scale.of(s.start_seconds), scale.of(s.seconds))
            for s in spans
            if s.rank == rank and s.seconds > 0
        ]
        ax.broken_barh(
            bars,
            (row - height / 2, height),
            facecolor=colour_of(_legend_kind(kind)),
            edgecolor="white",
            linewidth=0.0 if kind in COMMUNICATION or total > EDGES_UP_TO else 0.4,
            rasterized=total > RASTER_FROM,
        )


def _microbatches(
    ax: Axes, spans: list[Span], rows: Sequence[int], scale: Scale, longest: float
) -> None:
    for span in spans:
        action = action_of(span)
        if action is None or action.microbatch is None or kind_of(span) in COMMUNICATION:
            continue
        if span.seconds > LABEL_SHARE * longest:
            ax.text(
                scale.of((span.start_seconds + span.end_seconds) / 2),
                rows.index(span.rank),
                str(action.microbatch),
                ha="center",
                va="center",
                fontsize=SMALL_POINTS,
                color="white" if kind_of(span) == "forward" else INK,
                clip_on=True,
            )
