"""`meshwright show schedule`: the drawn grid, JSON, torch's CSV, and refusals with the way out."""

import json

import pytest

from planner import schedule_card
from planner.schedule import sheet, units
from planner.schedule.orders import orders
from planner.spec.runtime import SCHEDULES
from tests.test_front_door import Front, front

__all__ = ["front"]
SMALL = ("--ranks", "2", "--microbatches", "4")


def test_every_schedule_is_listed(front: Front) -> None:
    code, out, _ = front("show", "schedules", "--format", "json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["schedules"]] == list(SCHEDULES)


def test_the_table_is_the_grid_of_the_papers(front: Front) -> None:
    code, out, _ = front("show", "schedule", "1f1b", *SMALL)
    assert code == 0
    lines = out.splitlines()
    assert "15 slots of which 20.0% idle" in lines[0]
    assert "per rank 2,1" in lines[0]
    assert lines[2] == "rank 0 | 0F0 0F1 .   .   0B0---- 0F2 0B1---- 0F3 0B2---- .   0B3----"


@pytest.mark.parametrize("name", SCHEDULES)
def test_csv_is_torchs(front: Front, name: str) -> None:
    code, out, _ = front("show", "schedule", name, *SMALL, "--format", "csv")
    assert code == 0
    assert sheet.read(out) == units.of_orders(schedule_card.find(name, 2, 4, None))
    code, out, _ = front("show", "schedule", name, *SMALL, "--format", "csv", "--communication")
    assert code == 0
    assert "UNSHARD" in out


def test_json_has_the_facts(front: Front) -> None:
    words = ("show", "schedule", "zbv", *SMALL, "--format", "json")
    value = json.loads(front(*words)[1])
    assert value["schema"] == "schedule/1"
    assert value["rank_of_stage"] == [0, 1, 1, 0]
    assert value["in_flight"] == [4, 4]
    assert value["orders"][0][0] == {"action": "0F0", "start": 0, "end": 1}
    assert [len(order) for order in value["orders"]] == [24, 24]
    assert len(orders("zbv", 2, 4, 2)) == 48


WRONG = [
    (("schedule", "1f1b"), "--ranks 4 --microbatches 8"),
    (("schedule", "1f1b", "--ranks", "9999", "--microbatches", "9999"), "at most 1,000,000"),
    (("schedule", "1f1c"), "did you mean '1f1b'"),
    (("schedule", "1f1c", *SMALL), "did you mean '1f1b'"),
    (("schedule", "zbv", *SMALL, "--chunks", "3"), "use chunks=2"),
    (("schedule", "interleaved", "--ranks", "4", "--microbatches", "9"), "use 8 or 12"),
    (("models", "--ranks", "4"), "belong to `show schedule NAME`"),
    (("model", "gpt2", "--communication"), "belong to `show schedule NAME`"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_questions_are_refused(front: Front, words: tuple[str, ...], says: str) -> None:
    code, out, err = front("show", *words)
    assert (code, out) == (2, "")
    assert says in err
