"""Blocks: the figures of a page, each with its caption and the table of its data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from planner.spec.timeline import Span, Timeline
from planner.spec.units import format_bytes, format_seconds
from reports import figures
from reports.kinds import label_of
from reports.occupancy import shown_ranks
from reports.results import PlanResult
from reports.stage_memory import memory_by_stage
from reports.svg import inline_svg
from reports.tables import cell
from reports.verdict import percent

MOST_ROWS = 600
"""Longer data tables are cut; the trace has the rest."""


@dataclass(frozen=True, slots=True)
class Block:
    """A figure with its data. note says what the table leaves out, if anything."""

    svg: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def _block(ax: Axes, prefix: str, caption: str, rows: Sequence[Mapping[str, str]]) -> Block:
    columns = tuple(rows[0]) if rows else ()
    cut = tuple(tuple(row.values()) for row in rows[:MOST_ROWS])
    note = f"The first {MOST_ROWS} of {len(rows)} rows." if len(rows) > MOST_ROWS else ""
    return Block(inline_svg(ax, prefix, caption), caption, columns, cut, note)


def scatter_blocks(results: Sequence[PlanResult]) -> tuple[Block, ...]:
    """Predicted over measured step time and peak memory; () when no plan ran."""
    ran = [(f"#{i}", r) for i, r in enumerate(results, start=1) if r.measured is not None]
    blocks = []
    for what, value in (("step time", _step), ("peak memory", _peak)):
        found = [(label, pair) for label, result in ran if (pair := value(result)) is not None]
        if found:
            blocks.append(_scatter(what, dict(found)))
    return tuple(blocks)


def _step(result: PlanResult) -> tuple[float, float] | None:
    measured = result.measured_seconds
    return None if measured is None else (result.predicted_seconds, measured)


def _peak(result: PlanResult) -> tuple[float, float] | None:
    predicted, measured = result.predicted_peak_bytes, result.measured_peak_bytes
    return None if predicted is None or measured is None else (predicted, measured)


def _scatter(what: str, pairs: Mapping[str, tuple[float, float]]) -> Block:
    ax = figures.plot_scatter(list(pairs.values()), list(pairs), what)
    text = format_bytes if "memory" in what else format_seconds
    rows = [
        {"plan": label, "predicted": text(p), "measured": text(m), "error": percent(p / m - 1.0)}
        for label, (p, m) in pairs.items()
    ]
    caption = f"Predicted over measured {what}, one point per plan"
    return _block(ax, what.replace(" ", "-"), caption, rows)


def gantt_block(result: PlanResult, prefix: str) -> Block:
    """The predicted timeline above the measured one."""
    measured = None if result.measured is None else result.measured.timeline
    if measured is None:
        ax = figures.plot_gantt(result.predicted)
        caption = "The predicted step, rank by rank"
    else:
        ax, _ = figures.plot_gantt_pair(result.predicted, measured)
        caption = "The step rank by rank, the prediction above one measured step"
    return _block(ax, prefix, caption, _span_rows(result.predicted, measured))


def _span_rows(predicted: Timeline, measured: Timeline | None) -> list[dict[str, str]]:
    ranks = set(shown_ranks(predicted))
    columns = {"predicted": _by_key(predicted, ranks)}
    if measured is not None:
        columns["measured"] = _by_key(measured, ranks)
    keys = sorted(
        dict.fromkeys(key for spans in columns.values() for key in spans),
        key=lambda key: (key[0], min(_start(spans, key) for spans in columns.values())),
    )
    return [_span_row(key, columns) for key in keys]


def _by_key(timeline: Timeline, ranks: set[int]) -> dict[tuple[int, str], Span]:
    return {(s.rank, s.name): s for s in timeline.spans if s.rank in ranks}


def _start(spans: Mapping[Any, Span], key: tuple[int, str]) -> float:
    return spans[key].start_seconds if key in spans else float("inf")


def _span_row(
    key: tuple[int, str], columns: Mapping[str, Mapping[tuple[int, str], Span]]
) -> dict[str, str]:
    row = {"rank": str(key[0]), "action": key[1]}
    for name, spans in columns.items():
        span = spans.get(key)
        row[f"{name} start"] = "–" if span is None else format_seconds(span.start_seconds)
        row[f"{name} length"] = "–" if span is None else format_seconds(span.seconds)
    return row


def breakdown_block(result: PlanResult, prefix: str) -> Block:
    """Where the seconds of the step go, predicted and measured."""
    measured = None if result.measured is None else result.measured.timeline
    accounts = figures.breakdowns(result.plan, result.predicted, measured)
    kinds = dict.fromkeys(kind for parts in accounts.values() for kind in parts)
    rows = [
        {"part": label_of(kind)}
        | {
            name.replace("\n", " "): cell(parts.get(kind), format_seconds)
            for name, parts in accounts.items()
        }
        for kind in kinds
    ]
    ax = figures.plot_breakdown(accounts)
    return _block(ax, prefix, "The parts of the step; each bar sums to its step time", rows)


def memory_block(result: PlanResult, prefix: str) -> Block | None:
    """Promised peak per pipeline rank by purpose, and measured ones; None without a prediction."""
    stages = memory_by_stage(result.plan)
    if not stages or result.plan.predicted is None:
        return None
    layout = result.plan.layout
    peaks = {} if result.measured is None else result.measured.peak_bytes
    measured = figures.measured_by_stage(peaks, layout)
    ax = figures.plot_memory(stages, result.plan.predicted.capacity_bytes, measured)
    rows = [
        {"pipeline rank": str(stage)}
        | {label_of(purpose): format_bytes(size) for purpose, size in parts.items()}
        | {"promised": format_bytes(sum(parts.values()))}
        | {"measured": ", ".join(map(format_bytes, measured.get(stage, []))) or "–"}
        for stage, parts in enumerate(stages)
    ]
    caption = "Promised peak of a rank at each place of the pipeline"
    return _block(ax, prefix, caption + ("; diamonds: measured ranks" if peaks else ""), rows)


def memory_curve_block(result: PlanResult, prefix: str) -> Block | None:
    """Bytes held over the step; None where neither timeline has memory."""
    measured = None if result.measured is None else result.measured.timeline
    timelines = [each for each in (result.predicted, measured) if each is not None and each.memory]
    if not timelines:
        return None
    ax = figures.plot_memory_over_time(result.predicted, measured)
    shown = set(shown_ranks(result.predicted, limit=4))  # reads every span
    rows = [
        {
            "timeline": each.kind,
            "rank": str(point.rank),
            "at": format_seconds(point.at_seconds),
            "held": format_bytes(point.held_bytes),
        }
        for each in timelines
        for point in each.memory
        if point.rank in shown
    ]
    return _block(ax, prefix, "Bytes that a rank holds over the step", rows)
