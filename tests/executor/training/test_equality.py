"""Every plan learns the same: losses, gradient norms and metric of a single process, in fp64."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.executor.pool import Pool
from tests.executor.training.sessions import options, trained

LAYOUTS: list[dict[str, Any]] = [
    {"dp": 2, "zero": 3, "cp": 2, "micro_batch": 6},
    {"tp": 2, "dp": 2, "zero": 2, "micro_batch": 6},
    {"pp": 2, "micro_batch": 8},
    {"pp": 2, "vpp": 2, "schedule": "zbv", "dp": 2, "tp": 2, "micro_batch": 3},
]

FOUR_RANKS: list[dict[str, Any]] = [
    {"tp": 2, "cp": 2, "micro_batch": 12},
    {"pp": 2, "dp": 2, "zero": 1, "micro_batch": 4},
]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_plan_reaches_the_metric_of_one_process(
    pool: Pool, tmp_path: Path, name: str
) -> None:
    alone, *others = (
        trained(pool, name, options(tmp_path / str(i)), **layout)
        for i, layout in enumerate([{"micro_batch": 24}, *LAYOUTS])
    )
    assert alone.value == pytest.approx(math.exp(alone.held_out_loss))
    assert alone.loss[-1] < alone.loss[0]
    for other in others:
        assert other.loss == pytest.approx(alone.loss, rel=1e-12)
        assert other.gradient_norm == pytest.approx(alone.gradient_norm, rel=1e-11)
        assert other.value == pytest.approx(alone.value, rel=1e-11)


@pytest.mark.parametrize(
    ("task", "name", "layouts"),
    [
        ("tags", "llama", FOUR_RANKS),
        ("tags", "bert", [{"tp": 2, "dp": 2, "micro_batch": 6}, FOUR_RANKS[1]]),
        ("translation", "llama", FOUR_RANKS),
        ("translation", "t5", [{"tp": 2, "dp": 2, "zero": 1, "micro_batch": 6}]),
    ],
)
def test_predictions_are_those_of_one_process(
    pool: Pool, tmp_path: Path, task: str, name: str, layouts: list[dict[str, Any]]
) -> None:
    """The metric counts predictions, so it is equal, not near."""
    alone, *others = (
        trained(pool, name, options(tmp_path / str(i), task=task), seq_len=32, **layout)
        for i, layout in enumerate([{"micro_batch": 24}, *layouts])
    )
    for other in others:
        assert other.loss == pytest.approx(alone.loss, rel=1e-11)
        assert other.value == alone.value
