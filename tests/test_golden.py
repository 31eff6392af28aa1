"""Goldens: answers that must not change unless a change means to (`make goldens`, review)."""

import json

import pytest

from tests.golden import schedules
from tests.golden.questions import GOLDEN, answers


def test_answers_are_the_kept_ones() -> None:
    kept = json.loads(GOLDEN.read_text())
    for now, then in zip(answers(), kept, strict=True):
        assert now["question"] == then["question"]
        assert (now["layout"], now["stages"]) == (then["layout"], then["stages"])
        for key in ("step_seconds", "peak_bytes"):
            assert now[key] == pytest.approx(then[key], rel=1e-5), now["question"]
        assert now["breakdown"] == pytest.approx(then["breakdown"], rel=1e-3, abs=1e-6)


def test_schedules_are_the_kept_ones() -> None:
    assert schedules.text() == schedules.GOLDEN.read_text()
