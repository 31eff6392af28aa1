"""Every plan learns the same: losses, gradient norms and metric of a single process, in fp64."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from executor.mesh import close_mesh, make_mesh
from executor.progress import Progress
from executor.training.options import TrainOptions
from executor.training.session import Session
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from profiler.machine import describe
from tests.examples import gpt2_like, llama_like
from tests.executor.plans import make_plan
from tests.executor.pool import TIMEOUT, Pool

MODELS = {"gpt2": gpt2_like(vocab=256, layers=2), "llama": llama_like(vocab=257, layers=2)}
LAYOUTS: list[dict[str, Any]] = [
    {"dp": 2, "zero": 1, "micro_batch": 6},
    {"tp": 2, "micro_batch": 12},
    {"pp": 2, "micro_batch": 8},
    {"pp": 2, "vpp": 2, "schedule": "zbv", "dp": 2, "tp": 2, "micro_batch": 3},
]


def train(rank: int, plan: Plan, options: TrainOptions) -> Trained | None:
    """One rank of the pool."""
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    session = Session(
        plan, options, mesh, torch.device("cpu"), "gloo", describe(), Progress(None, rank)
    )
    found = session.train()
    close_mesh(mesh)
    return found


def options(folder: Path, **changes: Any) -> TrainOptions:
    values = {"steps": 3, "warmup": 1, "clip_norm": 0.5, "held_out": 2, "output": folder}
    return TrainOptions(**(values | changes))


@pytest.mark.parametrize("name", MODELS)
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


def trained(pool: Pool, name: str, chosen: TrainOptions, **layout: Any) -> Trained:
    """What a training on the pool came to; all its ranks agree."""
    plan = make_plan(MODELS[name], **layout)
    found = [each for each in pool.run(train, plan, chosen) if each is not None]
    assert len(found) == plan.layout.devices
    assert all(each.value == found[0].value for each in found)
    return found[0]
