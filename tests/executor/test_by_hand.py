"""The loops that the executor is timed against (tests.overhead) compute what it computes."""

import pytest
import torch

from executor import data
from executor.apply import apply
from executor.parallel.mesh import make_mesh
from executor.recorder import Recorder, make_clock
from executor.runner import Runner
from executor.train import counts_loss
from planner.spec.plan import Plan
from tests.executor.by_hand import PROGRAMMES
from tests.executor.plans import LEARNING_RATE, SEED, STEPS, make_plan
from tests.executor.pool import TIMEOUT, Pool

CPU = torch.device("cpu")


def both(rank: int, name: str, plan: Plan) -> list[tuple[float, ...]] | None:
    """Loss and norm of every step, by hand and by the executor."""
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    by_hand = PROGRAMMES[name][0](plan, mesh)
    runner = Runner(plan, mesh, apply(plan, mesh, CPU, SEED, LEARNING_RATE), CPU)
    found = []
    for step in range(STEPS):
        batch = data.microbatches(plan, mesh.place, SEED, step, CPU)
        recorder = Recorder(make_clock(CPU), lambda doing: None)
        losses = [*by_hand(batch), *runner.step(batch, recorder)]
        found.append(tuple(each.item() for each in losses))
    return found if counts_loss(plan, mesh) else None


@pytest.mark.parametrize("name", PROGRAMMES)
def test_loops_by_hand_compute_the_same(pool: Pool, name: str) -> None:
    plan = make_plan("llama", micro_batch=6, **PROGRAMMES[name][1])
    ranks = [each for each in pool.run(both, name, plan) if each is not None]
    assert len(ranks) == plan.layout.dp
    for steps in zip(*ranks, strict=True):
        loss = sum(step[0] for step in steps) / len(steps)
        assert loss == pytest.approx(sum(step[2] for step in steps), rel=1e-12)
        for _, norm, _, own in steps:
            assert norm == pytest.approx(own, rel=1e-11)
