import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.layout import Layout
from planner.spec.timeline import Span, Stream, Timeline
from reports.occupancy import (
    bubble,
    busiest_rank,
    covered_seconds,
    ranks_of,
    seconds_by_kind,
    shown_ranks,
)
from tests.reports.conftest import PIPELINE, make_timeline


def span(name: str, start: float, end: float, stream: Stream = "compute", rank: int = 0) -> Span:
    return Span(rank=rank, stream=stream, name=name, start_seconds=start, end_seconds=end)


def timeline(*spans: Span, step_seconds: float = 10.0) -> Timeline:
    return Timeline(kind="predicted", title="", ranks=2, step_seconds=step_seconds, spans=spans)


def test_parts_are_exposed_seconds() -> None:
    step = timeline(
        span("0F0", 0.0, 2.0),
        span("0B0", 3.0, 6.0),
        span("0REDUCE_GRAD", 5.0, 7.0, "dp"),
        span("0OPTIMIZER", 8.0, 9.0, "optimizer"),
        span("all_gather", 0.5, 1.0, "tp"),
        span("0RECV_B0", 2.0, 3.0, "pp"),
    )
    assert seconds_by_kind(step, 0) == {
        "forward": 2.0,
        "backward": 3.0,
        "gradients": 1.0,
        "optimizer": 1.0,
        "pipeline": 2.0,
        "runtime": 1.0,
    }
    assert bubble(step) == pytest.approx(0.2)


TIMES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted), max_size=8)


@given(TIMES)
def test_covered_seconds_count_every_moment_once(times: list[list[int]]) -> None:
    spans = [span("0F0", float(a), float(b)) for a, b in times]
    moments = {moment for a, b in times for moment in range(a, b)}
    assert covered_seconds(spans) == len(moments)


@given(TIMES, TIMES, TIMES)
def test_parts_sum_to_the_step(f: list, b: list, r: list) -> None:
    named = [("0F0", f), ("0B0", b), ("0REDUCE_GRAD", r)]
    spans = [span(name, float(x), float(y)) for name, times in named for x, y in times]
    assert sum(seconds_by_kind(timeline(*spans), 0).values()) == pytest.approx(10.0)


def test_bubble_of_1f1b_with_instant_transfers_is_the_known_one() -> None:
    stages, microbatches = 4, 8
    step = make_timeline(PIPELINE, microbatches)
    only = [s for s in step.spans if s.stream == "compute"]
    work = sum(s.seconds for s in only) / stages
    end = max(s.end_seconds for s in only)
    expected = 1.0 - work / end
    assert bubble(timeline(*only, step_seconds=end)) == pytest.approx(expected)
    assert expected > (stages - 1) / (microbatches + stages - 1)


def test_the_busiest_rank_is_the_lowest_of_equals() -> None:
    even = timeline(span("0F0", 0, 1, rank=1), span("0F0", 0, 1, rank=0))
    assert busiest_rank(even) == 0
    assert busiest_rank(timeline(span("0F0", 0, 1), span("1F0", 0, 2, rank=1))) == 1
    assert busiest_rank(timeline()) == 0


def test_many_ranks_are_shown_by_one_of_each_stage() -> None:
    step = make_timeline(Layout(dp=4, tp=2, pp=4), 2)
    assert len(ranks_of(step)) == 32
    assert shown_ranks(step, limit=16) == (0, 8, 16, 24)
    assert shown_ranks(step, limit=32) == tuple(range(32))
