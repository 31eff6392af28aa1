import sys

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from planner.spec.layout import Layout
from reports import figures
from reports.figures.scales import size_scale, time_scale
from reports.results import PlanResult
from tests.reports.conftest import MIB, PIPELINE, make_result, make_timeline

STAGES = ({"weights": 30 * MIB, "activations": 20 * MIB}, {"weights": 30 * MIB, "logits": 5 * MIB})


def every_plot(result: PlanResult, ax: Axes | None = None) -> list[Axes]:
    assert result.measured is not None
    accounts = figures.breakdowns(result.plan, result.predicted, result.measured.timeline)
    return [
        figures.plot_gantt(result.predicted, ax),
        figures.plot_breakdown(accounts, ax),
        figures.plot_memory(STAGES, 60 * MIB, {0: [40 * MIB]}, ax),
        figures.plot_memory_over_time(result.predicted, result.measured.timeline, ax),
        figures.plot_scatter([(1.0, 1.1)], ["#1"], ax=ax),
        figures.plot_plans([result], ax),
    ]


def test_every_plot_returns_axes_on_a_figure_of_its_own(results: list[PlanResult]) -> None:
    axes = every_plot(results[0])
    assert all(isinstance(ax, Axes) for ax in axes)
    assert len({id(ax.figure) for ax in axes}) == len(axes)


def test_every_plot_draws_where_it_is_told(results: list[PlanResult]) -> None:
    ax = Figure().subplots()
    assert all(drawn is ax for drawn in every_plot(results[0], ax))
    pair = Figure().subplots(2, 1)
    measured = results[0].measured
    assert measured is not None
    assert measured.timeline is not None
    drawn = figures.plot_gantt_pair(results[0].predicted, measured.timeline, (pair[0], pair[1]))
    assert drawn == (pair[0], pair[1])


def test_plots_leave_pyplot_alone(results: list[PlanResult]) -> None:
    every_plot(results[0])
    assert "matplotlib.pyplot" not in sys.modules


def test_the_gantt_has_a_bar_for_every_span_and_says_the_bubble() -> None:
    timeline = make_timeline(PIPELINE, 4)
    ax = figures.plot_gantt(timeline)
    bars = sum(len(c.get_paths()) for c in ax.collections if isinstance(c, PolyCollection))
    assert bars == sum(span.seconds > 0 for span in timeline.spans)
    assert "bubble" in ax.get_title(loc="left")
    assert ax.get_yticklabels()[0].get_text() == "rank 0, stage 0"


def test_the_pair_shares_one_time_axis(results: list[PlanResult]) -> None:
    measured = results[0].measured
    assert measured is not None
    assert measured.timeline is not None
    upper, lower = figures.plot_gantt_pair(results[0].predicted, measured.timeline)
    assert upper.get_xlim() == lower.get_xlim()
    assert upper.get_title(loc="left").startswith("predicted")
    assert lower.get_title(loc="left").startswith("measured")


def test_many_bars_become_an_image() -> None:
    few = figures.plot_gantt(make_timeline(PIPELINE, 4))
    many = figures.plot_gantt(make_timeline(Layout(pp=8), 100))
    assert not any(c.get_rasterized() for c in few.collections)
    assert any(c.get_rasterized() for c in many.collections)


def test_breakdown_bars_are_as_long_as_their_steps() -> None:
    ax = figures.plot_breakdown({"a": {"forward": 0.2, "pipeline": 0.1}, "b": {"odd": 0.05}})
    ends = {bar.get_y(): 0.0 for bar in ax.patches}
    for bar in ax.patches:
        ends[bar.get_y()] = max(ends[bar.get_y()], bar.get_x() + bar.get_width())
    assert [ends[y] for y in sorted(ends)] == pytest.approx([300.0, 50.0])


def test_memory_bars_reach_the_promise_and_capacity_is_a_line_or_words() -> None:
    ax = figures.plot_memory(STAGES, 60 * MIB, {1: [33 * MIB]})
    tops = [bar.get_y() + bar.get_height() for bar in ax.patches]
    assert max(tops) == pytest.approx(50.0)
    assert any("capacity 60 MiB" in text.get_text() for text in ax.texts)
    assert ax.get_ylim()[1] > 60
    far = figures.plot_memory(STAGES, 4096 * MIB)
    assert "off the scale" in far.get_title(loc="right")
    assert far.get_ylim()[1] < 100


def test_scatter_tells_the_median_error_and_goes_logarithmic() -> None:
    near = figures.plot_scatter([(1.1, 1.0), (0.8, 1.0), (3.0, 3.0)])
    assert "median error 10.0%, 3 plans" in near.get_title(loc="left")
    assert near.get_xscale() == "linear"
    assert figures.plot_scatter([(1.0, 1.0), (100.0, 100.0)]).get_xscale() == "log"


def test_labels_of_the_scatter_do_not_share_a_spot() -> None:
    pairs = [(1.0, 1.0), (1.0, 1.005), (1.005, 1.0)]
    ax = figures.plot_scatter(pairs, ["#1", "#2", "#3"])
    spots = {t.xyann for t in ax.texts if isinstance(t, Annotation) and "#" in t.get_text()}
    assert len(spots) == 3


def test_measured_peaks_go_to_the_stage_of_their_rank() -> None:
    layout = Layout(dp=2, pp=2)
    assert figures.measured_by_stage({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, layout) == {
        0: [1.0, 2.0],
        1: [3.0, 4.0],
    }


def test_the_table_of_plans_has_a_row_per_plan(results: list[PlanResult]) -> None:
    ax = figures.plot_plans([*results, make_result(PIPELINE, None)])
    rows = {row for row, _ in ax.tables[0].get_celld()}
    assert rows == set(range(5))


def test_scales_choose_a_unit_that_reads_well() -> None:
    assert time_scale(0.25).text(0.0142) == "14.2 ms"
    assert time_scale(2.0).unit == "s"
    assert time_scale(0.0).unit == "us"
    assert size_scale(3 * 2.0**30).text(1.5 * 2.0**30) == "1.5 GiB"
    assert size_scale(0.0).unit == "B"
