"""The figure of a validation shows every measured run, source by source, around y = x."""

import numpy as np
from matplotlib.axes import Axes

from reports.figures.validation import plot_validation
from tests.reports.validation.rows import GIB, judged, measured, run, truth


def points(ax: Axes) -> list[tuple[float, float]]:
    lines = [line for line in ax.get_lines() if line.get_marker() == "o"]
    return [
        (float(x), float(y))
        for line in lines
        for x, y in zip(np.array(line.get_xdata()), np.array(line.get_ydata()), strict=True)
    ]


def test_every_timed_run_is_a_point_of_measured_and_predicted() -> None:
    runs = [*measured([1.0, 20.0]), run(9, source="other", step_time_s=3.0)]
    ax = plot_validation(judged(runs, lambda case: 2.0 * truth(case)))
    assert points(ax) == [(1.0, 2.0), (20.0, 40.0), (3.0, 6.0)]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "mine: 100.0%, 2 runs",
        "other: 100.0%, 1 run",
    ]


def test_the_axes_are_logarithmic_equal_and_hold_all_points_and_the_diagonal() -> None:
    ax = plot_validation(judged(measured([0.1, 100.0]), lambda case: 0.5 * truth(case)))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlim() == ax.get_ylim()
    low, high = ax.get_xlim()
    assert all(low < value < high for pair in points(ax) for value in pair)
    diagonal = ax.get_lines()[0]
    assert list(np.array(diagonal.get_xdata())) == list(np.array(diagonal.get_ydata()))


def test_memory_is_drawn_in_gibibytes() -> None:
    runs = [run(2, peak_mem_gib=3.0, step_time_s=None), run(3)]
    ax = plot_validation(judged(runs, lambda _: 1.0, peak=lambda _: 4.0 * GIB), "peak memory")
    assert points(ax) == [(3.0, 4.0)]


def test_an_empty_validation_is_an_empty_figure() -> None:
    ax = plot_validation(judged([run(2, step_time_s=None)]))
    assert points(ax) == []
    assert "nothing was measured" in ax.get_title(loc="left")
