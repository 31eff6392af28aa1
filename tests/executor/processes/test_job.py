"""Ranks that were told different things all end, with the first difference by name."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import distributed as dist

from executor.options import RunOptions
from executor.processes.job import check_alike, told
from executor.training.options import TrainOptions
from planner.spec.documents import InputError
from tests.executor.plans import make_plan

PLAN = make_plan("llama", dp=2)
OPTIONS = RunOptions(steps=2)


def verdicts(*each: dict[str, str]) -> set[str]:
    """What every rank says; nothing where all begin."""
    store = dist.HashStore()

    def ask(rank: int) -> str:
        try:
            check_alike(store, rank, len(each), each[rank])
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(each)) as threads:
        return set(threads.map(ask, range(len(each))))


def test_equal_ranks_begin() -> None:
    assert verdicts(*[told(PLAN, OPTIONS)] * 3) == {""}
    assert verdicts(told(PLAN, OPTIONS)) == {""}


def test_another_plan() -> None:
    other = make_plan("llama", tp=2)
    (said,) = verdicts(told(PLAN, OPTIONS), told(PLAN, OPTIONS), told(other, OPTIONS))
    assert said.startswith("rank 2 was started with plan.layout.dp=1, rank 0 with 2; give all")


def test_another_option() -> None:
    other = dataclasses.replace(OPTIONS, learning_rate=1e-2)
    (said,) = verdicts(told(PLAN, OPTIONS), told(PLAN, other))
    assert said.startswith("rank 1 was started with options.learning_rate=0.01, rank 0 with 0.001")


def test_what_each_machine_may_have_its_own_of() -> None:
    plan = PLAN.replace(predicted=None)
    here, there = TrainOptions(output=Path("a")), TrainOptions(output=Path("b"), backend="gloo")
    assert told(plan, here) == told(PLAN, there)
