import os
import random
import statistics
import time

import pytest
from torch.multiprocessing import ProcessExitedException

from tests.overhead import KINDS, job, median_interval, order, time_steps


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    chance = random.Random(0)
    draws = [median_interval([chance.gauss(0, 1) for _ in range(30)]) for _ in range(2000)]
    held = statistics.mean(low <= 0.0 <= high for _, low, high in draws)
    assert 0.945 < held < 0.975  # 95.7 % in theory, with a standard error of 0.5 %


def test_every_kind_stands_everywhere_as_often() -> None:
    turns = [order(turn) for turn in range(2 * len(KINDS))]
    assert all(sorted(place) == [0, 0, 1, 1, 2, 2] for place in zip(*turns, strict=True))


def lose_rank_1(rank: int, folder: str) -> None:
    if rank:
        os._exit(9)
    time.sleep(600)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job() -> None:
    with pytest.raises(ProcessExitedException, match="exit code 9"):
        job(lose_rank_1)


@pytest.mark.slow
def test_every_step_is_timed() -> None:
    wall, cpu = job(time_steps, "ddp", 2)
    assert len(wall) == len(cpu) == 2
    assert all(len(row) == len(KINDS) and min(row) > 0 for row in wall + cpu)
