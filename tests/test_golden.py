"""Goldens: answers that must not change unless a change means to (`make goldens`, review)."""

import json

import pytest

from tests.golden import schedules
from tests.golden.questions import GOLDEN, LONG, QUESTIONS, Question, answer

KEPT = json.loads(GOLDEN.read_text())
SLOW = pytest.mark.slow
ASKED = [
    pytest.param(question, kept, marks=[SLOW] * (question[0] in LONG), id=question[0])
    for question, kept in zip(QUESTIONS, KEPT, strict=True)
]


@pytest.mark.parametrize(("question", "then"), ASKED)
def test_answers_are_the_kept_ones(question: Question, then: dict) -> None:
    now = answer(question)
    for key in ("question", "layout", "stages"):
        assert now[key] == then[key]
    for key in ("step_seconds", "peak_bytes"):
        assert now[key] == pytest.approx(then[key], rel=1e-5)
    assert now["breakdown"] == pytest.approx(then["breakdown"], rel=1e-3, abs=1e-6)


def test_schedules_are_the_kept_ones() -> None:
    assert schedules.text() == schedules.GOLDEN.read_text()
