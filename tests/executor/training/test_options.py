from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.training import options, tasks
from executor.training.options import TrainOptions
from planner.spec.documents import InputError
from tests.executor.plans import make_plan


@given(
    st.integers(1, 10**6),
    st.none() | st.integers(0, 99),
    st.none() | st.floats(1e-9, 1e3),
    st.floats(1e-3, 1e5),
    st.none() | st.just(Path("some where")),
)
def test_words_are_read_back(
    steps: int, warmup: int | None, clip: float | None, timeout: float, folder: Path | None
) -> None:
    chosen = TrainOptions(
        steps=steps, warmup=warmup, clip_norm=clip, timeout_seconds=timeout, tensorboard=folder
    )
    assert options.read_words(options.words(chosen)) == chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps: 0 is too few"),
        ({"held_out": 0}, "--held-out: 0 is too few"),
        ({"learning_rate": -1.0}, "--learning-rate: -1.0 is not a positive number"),
        ({"clip_norm": 0.0}, "--clip-norm: 0.0 is not a positive number"),
        ({"backend": "mpi"}, "--backend: 'mpi' is unknown"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(**changes)


def test_unknown_tasks_and_small_vocabularies_are_refused() -> None:
    plan = make_plan("gpt2")
    with pytest.raises(InputError, match=r"--task: 'langauge' is unknown; did you mean language"):
        tasks.check("langauge", plan)
    with pytest.raises(InputError, match=r"vocab=97 is too small .* vocab=256 or more"):
        tasks.check("language", plan)
