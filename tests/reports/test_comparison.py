import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import documents
from planner.spec.timeline import Span, Stream, Timeline
from reports.comparison import Comparison, compare
from tests.reports.conftest import PIPELINE, make_timeline


def timeline(kind: str, *rows: tuple[int, Stream, str, float], **fields: object) -> Timeline:
    spans = tuple(
        Span(rank=rank, stream=stream, name=name, start_seconds=0.5, end_seconds=0.5 + seconds)
        for rank, stream, name, seconds in rows
    )
    values = {"kind": kind, "title": kind, "ranks": 2, "spans": spans, "step_seconds": 4.0}
    return Timeline.model_validate(values | fields)


PREDICTED = timeline(
    "predicted",
    (0, "compute", "0F0", 1.0),
    (0, "compute", "0F1", 1.0),
    (0, "compute", "0B0", 2.0),
    (1, "compute", "1F0", 1.5),
    (0, "pp", "0SEND_F0", 0.0),
    (1, "dp", "1REDUCE_GRAD", 0.25),
    peak_bytes={0: 100.0, 1: 100.0},
)
MEASURED = timeline(
    "measured",
    (0, "compute", "0F0", 2.0),
    (0, "compute", "0F1", 1.0),
    (0, "compute", "0B0", 1.0),
    (1, "compute", "1F0", 2.0),
    (0, "pp", "0SEND_F0", 0.0),
    (1, "compute", "warm", 1.0),
    (1, "compute", "1B7", 1.0),
    step_seconds=5.0,
    peak_bytes={0: 80.0, 1: 125.0, 2: 1.0},
)


def test_totals_medians_and_errors_are_exact() -> None:
    found = compare(PREDICTED, MEASURED)
    forward, backward, send = found.kinds
    assert (forward.kind, forward.actions) == ("forward", 3)
    assert (forward.predicted_total_seconds, forward.measured_total_seconds) == (3.5, 5.0)
    assert (forward.predicted_median_seconds, forward.measured_median_seconds) == (1.0, 2.0)
    assert forward.error == pytest.approx(-0.3)
    assert (backward.kind, backward.error) == ("backward", 1.0)
    assert (send.kind, send.error) == ("send", None)
    assert found.step_error == pytest.approx(-0.2)


def test_names_without_a_partner_are_counted_on_their_side() -> None:
    found = compare(PREDICTED, MEASURED)
    assert (found.matched, found.only_predicted, found.only_measured) == (5, 1, 2)


def test_a_name_that_appears_twice_counts_with_its_sum() -> None:
    twice = timeline("measured", (0, "compute", "0F0", 0.5), (0, "compute", "0F0", 1.0))
    (forward,) = compare(timeline("predicted", (0, "compute", "0F0", 3.0)), twice).kinds
    assert (forward.actions, forward.measured_total_seconds) == (1, 1.5)


def test_peaks_are_judged_by_rank() -> None:
    first, second = compare(PREDICTED, MEASURED).peaks
    assert (first.rank, first.error, first.kept) == (0, 0.25, True)
    assert (second.rank, second.error, second.kept) == (1, pytest.approx(-0.2), False)


def test_the_frame_has_units_in_its_columns_and_the_step_last() -> None:
    frame = compare(PREDICTED, MEASURED).to_frame()
    assert list(frame.columns) == [
        "kind",
        "actions",
        "predicted_total_seconds",
        "measured_total_seconds",
        "predicted_median_seconds",
        "measured_median_seconds",
        "error",
    ]
    assert list(frame["kind"]) == ["forward", "backward", "send", "step"]
    assert frame["measured_total_seconds"].iloc[-1] == 5.0


def test_a_comparison_is_a_document() -> None:
    found = compare(PREDICTED, MEASURED)
    dumped = found.model_dump(mode="json")
    assert dumped["schema"] == "comparison/1"
    assert documents.parse(Comparison, dumped, "here") == found


@given(st.floats(0.25, 4.0))
def test_a_run_that_is_slower_by_a_factor_shows_that_factor(pace: float) -> None:
    predicted = make_timeline(PIPELINE, 3)
    found = compare(predicted, make_timeline(PIPELINE, 3, "predicted", pace))
    assert found.only_predicted == found.only_measured == 0
    assert all(kind.error == pytest.approx(1 / pace - 1) for kind in found.kinds if kind.error)
    assert found.step_error == pytest.approx(1 / pace - 1)
