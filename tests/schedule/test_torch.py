"""Equal to torch.distributed.pipelining, action for action, and refusing where it refuses."""

from typing import Any

import pytest

from planner.schedule import orders
from planner.schedule.orders import problem
from planner.spec.runtime import SCHEDULES
from tests.schedule import torch_schedules

CHUNKS = {"gpipe": (1,), "1f1b": (1,), "zb-h1": (1,)}


def words(made: orders.Orders) -> list[tuple[str, ...]]:
    """In torch's notation, pairs joined."""
    found = []
    grid, pairs = orders.grid(made), iter(made.pairs.tolist())
    for order in grid:
        own: list[str] = []
        joined = False
        for action, pair in zip(order, pairs, strict=False):
            own.append(f"{own.pop()};{action})OVERLAP_F_B" if joined else str(action))
            own[-1] = f"({own[-1]}" if pair else own[-1]
            joined = pair
        found.append(tuple(own))
    return found


def torch_words(name: str, ranks: int, chunks: int, m: int) -> list[tuple[str, ...]] | None:
    """None where torch refuses."""
    try:
        schedule = torch_schedules.build(name, ranks, chunks, m)
    except ValueError:
        return None
    found = list(torch_schedules.compute(schedule))
    if name == "1f1b":
        # this listing numbers the last stage's forwards 1 .. m; what torch runs is tested below
        forwards = [word for word in found[-1] if "F" in word]
        shifted = {word: f"{ranks - 1}F{k}" for k, word in enumerate(forwards)}
        found[-1] = tuple(shifted.get(word, word) for word in found[-1])
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_orders_are_torchs(name: str) -> None:
    compared = 0
    for ranks in (1, 2, 3, 4, 5, 8):
        for chunks in CHUNKS.get(name, (1, 2, 3)):
            for m in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 19, 24):
                expected = torch_words(name, ranks, chunks, m)
                if name == "1f1b" and m < ranks:
                    assert expected is None  # ours allow it
                    continue
                assert (expected is None) == (problem(name, ranks, chunks, m) is not None)
                if expected is not None:
                    assert words(orders.orders(name, ranks, m, chunks)) == expected
                    compared += 1
    assert compared >= 40


class Recording:
    """A stage that computes nothing and notes what a schedule asks of it."""

    def __init__(self, index: int, ranks: int):
        self.stage_index, self.num_stages = index, ranks
        self.group_size, self.group_rank = ranks, index
        self.is_last, self.done = False, []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("get_"):
            return lambda *_: []
        raise AttributeError(name)

    def forward_one_chunk(self, k: int, *_: Any, **__: Any) -> None:
        self.done.append(f"{self.stage_index}F{k}")

    def backward_one_chunk(self, k: int, **_: Any) -> None:
        self.done.append(f"{self.stage_index}B{k}")

    def perform_reduce_grad(self, _: float) -> None:
        self.done.append(f"{self.stage_index}REDUCE_GRAD")


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("ranks", "m"), [(1, 3), (2, 2), (3, 7), (5, 5), (4, 9)])
def test_what_the_single_stage_schedules_run(
    name: str, ranks: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, expected in enumerate(words(orders.orders(name, ranks, m))):
        stage = Recording(rank, ranks)
        schedule = torch_schedules.CLASSES[name](stage, m)
        monkeypatch.setattr(schedule, "_initialize_stage", lambda *_: None)
        schedule._step_microbatches([()] * m, [{}] * m)
        assert tuple(stage.done) == (*expected, f"{rank}REDUCE_GRAD")
