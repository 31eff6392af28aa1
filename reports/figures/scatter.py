"""Scatter: predicted over measured, one point per plan, with y = x and a band of 10 percent."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from reports.figures.canvas import QUIET, Pair, Side, add_note, dress, new_axes
from reports.figures.scales import Scale, size_scale, time_scale
from reports.results import median_error

BAND = 0.10
LOG_FROM = 20.0
"""Values that differ by this factor stand on logarithmic axes."""

OFFSETS = ((6.0, -3.0), (-6.0, -3.0), (0.0, 6.0), (0.0, -12.0), (6.0, 6.0), (-6.0, 6.0))
"""Where a point's label may stand, in points (1/72 inch), best first."""

SIDE_POINTS = 270.0
"""About how long a side of the square is; labels keep ENOUGH_POINTS from each other."""

ENOUGH_POINTS = 11.0


def plot_scatter(
    pairs: Sequence[Pair],
    labels: Sequence[str] = (),
    what: str = "step time",
    ax: Axes | None = None,
) -> Axes:
    """(predicted, measured) pairs; `what` is "step time" in seconds or "peak memory" in bytes."""
    if ax is None:
        ax = new_axes(5.3, 4.6)
    values = [value for pair in pairs for value in pair]
    largest = max(values, default=1.0)
    scale = size_scale(largest) if "memory" in what else time_scale(largest)
    low, high = _limits(ax, values, scale)
    _band(ax, low, high)
    x, y = [scale.of(m) for _, m in pairs], [scale.of(p) for p, _ in pairs]
    ax.plot(x, y, "o", markersize=6.5, color="#0072B2", markeredgecolor="white")
    dress(ax, _title(pairs, what), f"measured ({scale.unit})", f"predicted ({scale.unit})", "both")
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    _labels(ax, x, y, labels)
    return ax


def _title(pairs: Sequence[Pair], what: str) -> str:
    error = median_error([p / m - 1.0 for p, m in pairs if m > 0])
    plans = f"{len(pairs)} plan{'' if len(pairs) == 1 else 's'}"
    return what if error is None else f"{what}: median error {error:.1%}, {plans}"


def _limits(ax: Axes, values: list[float], scale: Scale) -> Pair:
    positive = [scale.of(value) for value in values if value > 0] or [1.0]
    if max(positive) > LOG_FROM * min(positive):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        return min(positive) / 1.5, max(positive) * 1.5
    return 0.0, max(positive) * 1.12


def _band(ax: Axes, low: float, high: float) -> None:
    ends = [low, high]
    lower, upper = [(1.0 - BAND) * e for e in ends], [(1.0 + BAND) * e for e in ends]
    ax.fill_between(ends, lower, upper, color="#0072B2", alpha=0.10, linewidth=0.0)
    ax.plot(ends, ends, color=QUIET, linewidth=0.9)
    add_note(ax, f"band: ±{BAND:.0%}", (high, low), (-4, 5), "right", QUIET)


def _labels(ax: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[str]) -> None:
    """Each label at the first offset where it covers neither a point nor another label."""
    place = ax.transScale + ax.transLimits
    spots = [
        (SIDE_POINTS * u, SIDE_POINTS * v) for u, v in map(place.transform, zip(x, y, strict=True))
    ]
    taken = list(spots)
    for spot, point, label in zip(spots, zip(x, y, strict=True), labels, strict=False):
        offset = max(OFFSETS, key=lambda o: _room(o, spot, taken))
        taken.append(_centre(offset, spot))
        side: Side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
        add_note(ax, label, point, offset, side)


def _centre(offset: Pair, spot: Pair) -> Pair:
    """The middle of a short label at this offset from its point."""
    return spot[0] + 1.7 * offset[0], spot[1] + offset[1] + 3.0


def _room(offset: Pair, spot: Pair, taken: Sequence[Pair]) -> float:
    """Distance in points from a label to what is already there, cut where it is enough."""
    x, y = _centre(offset, spot)
    gaps = [math.hypot(x - u, y - v) for u, v in taken if (u, v) != spot]
    return min([ENOUGH_POINTS, *gaps])
