"""Validation figures: predicted over measured, one colour per source, y = x and a band of 10 %."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from planner.spec.documents import InputError
from reports.figures.canvas import INK, QUIET, SMALL_POINTS, Pair, add_note, dress, new_axes
from reports.results import median_error
from reports.svg import NO_METADATA
from reports.validation.outcome import Outcome
from reports.validation.validation import Validation

BAND = 0.10
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
"""Okabe and Ito, a grey instead of their yellow: told apart without colour vision."""

SUFFIXES = (".svg", ".png")
GIB = 2.0**30


def plot_validation(
    validation: Validation, what: str = "step time", ax: Axes | None = None
) -> Axes:
    """Every measured run of a validation; `what` is "step time" (s) or "peak memory" (GiB)."""
    if ax is None:
        ax = new_axes(6.4, 6.2)
    pairs = {name: _pairs(validation, name, what) for name in validation.sources}
    pairs = {name: found for name, found in pairs.items() if found}
    low, high = _limits([value for found in pairs.values() for pair in found for value in pair])
    _band(ax, low, high)
    for index, found in enumerate(pairs.values()):
        _points(ax, found, COLOURS[index % len(COLOURS)])
    unit = "GiB" if what == "peak memory" else "s"
    dress(ax, _title(pairs, what), f"measured ({unit})", f"predicted ({unit})", "both")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.legend(
        handles=[_handle(name, i, found) for i, (name, found) in enumerate(pairs.items())],
        loc="upper left",
        fontsize=SMALL_POINTS,
        frameon=False,
        labelcolor=INK,
    )
    return ax


def write_figure(ax: Axes, path: Path | str) -> Path:
    """Write the figure of these axes as SVG or PNG by the file's name. Raises InputError."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a figure is written as {' or '.join(SUFFIXES)}; name it so")
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = NO_METADATA if path.suffix == ".svg" else None
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
            figure.savefig(path, dpi=150, metadata=metadata)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def _pairs(validation: Validation, source: str, what: str) -> list[Pair]:
    """(measured, predicted) of a source's measured runs."""
    found = (_pair(each, what) for each in validation.outcomes if each.source == source)
    return [pair for pair in found if pair is not None]


def _pair(outcome: Outcome, what: str) -> Pair | None:
    if what == "peak memory":
        if not outcome.measured_bytes:
            return None
        return outcome.measured_bytes / GIB, outcome.predicted.peak_bytes / GIB
    if not outcome.measured_seconds:
        return None
    return outcome.measured_seconds, outcome.predicted.step_seconds


def _limits(values: list[float]) -> Pair:
    return (min(values) / 1.5, max(values) * 1.5) if values else (0.1, 10.0)


def _band(ax: Axes, low: float, high: float) -> None:
    ends = [low, high]
    lower, upper = [(1.0 - BAND) * e for e in ends], [(1.0 + BAND) * e for e in ends]
    ax.fill_between(ends, lower, upper, color=QUIET, alpha=0.15, linewidth=0.0)
    ax.plot(ends, ends, color=QUIET, linewidth=0.9)
    add_note(ax, f"band: ±{BAND:.0%}", (high, low), (-4, 5), "right", QUIET)


def _points(ax: Axes, pairs: Sequence[Pair], colour: str) -> None:
    ax.plot(
        [measured for measured, _ in pairs],
        [predicted for _, predicted in pairs],
        "o",
        markersize=3.5,
        color=colour,
        alpha=0.55,
        markeredgewidth=0.0,
    )


def _title(pairs: dict[str, list[Pair]], what: str) -> str:
    errors = [guess / measured - 1.0 for found in pairs.values() for measured, guess in found]
    middle = median_error(errors)
    if middle is None:
        return f"{what}: nothing was measured"
    return f"{what}: median error {middle:.1%}, {len(errors)} runs"


def _handle(name: str, index: int, pairs: Sequence[Pair]) -> Line2D:
    middle = median_error([predicted / measured - 1.0 for measured, predicted in pairs])
    colour = COLOURS[index % len(COLOURS)]
    label = f"{name}: {middle:.1%}, {len(pairs)} run{'' if len(pairs) == 1 else 's'}"
    return Line2D([], [], marker="o", linestyle="", markersize=5, color=colour, label=label)
