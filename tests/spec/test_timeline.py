"""Timeline: spans of time that have begun and ended."""

import pydantic
import pytest

from planner.spec.timeline import Span

FIELDS = {"rank": 0, "stream": "compute", "name": "0F0", "start_seconds": 1, "end_seconds": 3}


def test_a_span_lasts_from_start_to_end():
    assert Span(**FIELDS).seconds == 2


@pytest.mark.parametrize("changes", [{"rank": -1}, {"stream": "disk"}, {"start_seconds": -1}])
def test_impossible_spans_are_refused(changes):
    with pytest.raises(pydantic.ValidationError):
        Span(**{**FIELDS, **changes})


def test_a_span_does_not_end_before_it_starts():
    with pytest.raises(pydantic.ValidationError):
        Span(**{**FIELDS, "start_seconds": 4})
