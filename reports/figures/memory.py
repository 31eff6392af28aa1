"""Memory: what was promised per stage by purpose, what ranks held, and what they could hold."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from planner.spec.layout import Layout
from planner.spec.timeline import Timeline
from reports.figures.canvas import (
    HALF_HEIGHT_INCHES,
    HALF_INCHES,
    INK,
    QUIET,
    SMALL_POINTS,
    add_legend,
    add_note,
    dress,
    kind_patches,
    new_axes,
)
from reports.figures.scales import Scale, size_scale, time_scale
from reports.kinds import colour_of
from reports.occupancy import shown_ranks

PURPOSES = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "buffers",
    "runtime",
    "in all",
)
OFF_SCALE = 2.5
"""A capacity that many times the highest bar is told in words, so that the bars stay readable."""

DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 4.5,
    "markerfacecolor": "white",
    "markeredgecolor": INK,
}

DASHES: dict[str, Literal["--", "-"]] = {"predicted": "--", "measured": "-"}

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#999999")


def plot_memory(
    stages: Sequence[Mapping[str, float]],
    capacity_bytes: float | None = None,
    measured_bytes: Mapping[int, Sequence[float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Promised bytes by purpose, one bar per stage; measured peaks of its ranks as diamonds."""
    if ax is None:
        ax = new_axes(HALF_INCHES, HALF_HEIGHT_INCHES)
    peaks = measured_bytes or {}
    highest = max([sum(parts.values()) for parts in stages] + [max(p) for p in peaks.values() if p])
    scale = size_scale(highest)
    for stage, parts in enumerate(stages):
        _bar(ax, stage, parts, scale)
    _peaks(ax, peaks, scale)
    dress(ax, "peak memory by pipeline rank", "", f"bytes per rank ({scale.unit})")
    ax.set_ylim(0.0, scale.of(highest) * 1.16)
    _capacity(ax, capacity_bytes, highest, scale)
    ax.set_xlim(-0.7, len(stages) - 0.3)
    ax.set_xticks(range(len(stages)), _stage_names(len(stages)))
    _legend(ax, stages, bool(peaks))
    return ax


def _bar(ax: Axes, stage: int, parts: Mapping[str, float], scale: Scale) -> None:
    bottom = 0.0
    for purpose in PURPOSES:
        height = scale.of(parts.get(purpose, 0.0))
        colour = colour_of(purpose)
        ax.bar(stage, height, 0.56, bottom, color=colour, edgecolor="white", linewidth=0.5)
        bottom += height
    add_note(ax, f"{bottom:.3g}", (stage, bottom), (0, 3))


def _peaks(ax: Axes, peaks: Mapping[int, Sequence[float]], scale: Scale) -> None:
    for stage, values in peaks.items():
        ax.plot(
            [stage + 0.36] * len(values),
            [scale.of(value) for value in values],
            linestyle="none",
            **DIAMOND,
        )


def _capacity(ax: Axes, capacity: float | None, highest: float, scale: Scale) -> None:
    if capacity is None:
        return
    text = f"capacity {size_scale(capacity).text(capacity)}"
    if capacity > OFF_SCALE * highest:
        ax.set_title(f"{text}\n(off the scale)", loc="right", fontsize=SMALL_POINTS, color=QUIET)
        return
    line = scale.of(capacity)
    ax.set_ylim(0.0, max(line, scale.of(highest)) * 1.16)
    ax.axhline(line, color=INK, linewidth=1.2, linestyle="--")
    add_note(ax, text, (-0.7, line), (3, 3), "left")


def _stage_names(stages: int) -> list[str]:
    return ["all layers"] if stages == 1 else [f"pp {stage}" for stage in range(stages)]


def _legend(ax: Axes, stages: Sequence[Mapping[str, float]], measured: bool) -> None:
    used = [purpose for purpose in PURPOSES if any(parts.get(purpose) for parts in stages)]
    handles = kind_patches(reversed(used))
    if measured:
        handles.append(Line2D([], [], linestyle="none", label="measured peak", **DIAMOND))
    add_legend(ax, handles)


def measured_by_stage(peak_bytes: Mapping[int, float], layout: Layout) -> dict[int, list[float]]:
    """Measured peaks by the stage (coordinate on pp) that each rank holds."""
    stages: dict[int, list[float]] = {}
    for rank in sorted(peak_bytes):
        stages.setdefault(layout.coordinates(rank)["pp"], []).append(peak_bytes[rank])
    return stages


def plot_memory_over_time(
    predicted: Timeline, measured: Timeline | None = None, ax: Axes | None = None
) -> Axes:
    """Bytes held over the step: solid what was measured, dashed what was predicted."""
    if ax is None:
        ax = new_axes(HALF_INCHES, HALF_HEIGHT_INCHES)
    timelines = [predicted] if measured is None else [predicted, measured]
    points = [point for each in timelines for point in each.memory]
    size = size_scale(max((p.held_bytes for p in points), default=0.0))
    time = time_scale(max(each.step_seconds for each in timelines))
    ranks = shown_ranks(predicted, limit=4)[: len(LINES)]
    for each in timelines:
        for rank, colour in zip(ranks, LINES, strict=False):
            _curve(ax, each, rank, colour, time, size)
    dress(ax, "memory over the step", f"time in the step ({time.unit})", f"held ({size.unit})")
    ax.set_ylim(bottom=0.0)
    ax.set_xlim(left=0.0)
    _curve_legend(ax, ranks, [each.kind for each in timelines if each.memory])
    return ax


def _curve(ax: Axes, timeline: Timeline, rank: int, colour: str, time: Scale, size: Scale) -> None:
    points = sorted((p.at_seconds, p.held_bytes) for p in timeline.memory if p.rank == rank)
    if not points:
        return
    points.append((max(timeline.step_seconds, points[-1][0]), points[-1][1]))
    ax.plot(
        [time.of(at) for at, _ in points],
        [size.of(held) for _, held in points],
        drawstyle="steps-post",
        linestyle=DASHES[timeline.kind],
        linewidth=1.4,
        color=colour,
    )


def _curve_legend(ax: Axes, ranks: Sequence[int], kinds: Sequence[str]) -> None:
    handles: list[Artist] = [
        Line2D([], [], color=colour, linewidth=1.6, label=f"rank {rank}")
        for rank, colour in zip(ranks, LINES, strict=False)
    ]
    handles += [Line2D([], [], color=QUIET, linestyle=DASHES[k], label=k) for k in kinds]
    add_legend(ax, handles, handle_length=1.8)
