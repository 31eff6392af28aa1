"""torch's own runtime runs our CSV: gradients as in one process, in fp64, for every schedule."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from planner.schedule import sheet
from planner.schedule.orders import V_SHAPED, default_chunks, orders
from planner.spec.runtime import SCHEDULES
from tests.executor.pool import TIMEOUT, Pool

WIDTH, ROWS = 6, 2
RANKS, MICROBATCHES = 2, 4
TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def part(stage: int) -> nn.Module:
    torch.manual_seed(stage)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).double()


def batch(microbatches: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(99)
    shape = (2, ROWS * microbatches, WIDTH)
    x, target = torch.randn(shape, dtype=torch.float64)
    return x, target


def run(rank: int, path: str, form: str, stages: list[list[int]]) -> dict[int, list[Tensor]] | None:
    """One step of torch's runtime; the gradients of the rank's stages."""
    group = dist.new_group(list(range(RANKS)), timeout=TIMEOUT)
    if rank >= RANKS:
        return None
    count = sum(map(len, stages))
    own = [
        PipelineStage(part(stage), stage, count, torch.device("cpu"), group=group)
        for stage in stages[rank]
    ]
    loss = nn.functional.mse_loss
    schedule = _PipelineScheduleRuntime(own, MICROBATCHES, loss_fn=loss)
    schedule._load_csv(path, format=form)
    x, target = batch(MICROBATCHES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecated calls
        schedule.step(*([x] if 0 in stages[rank] else []), target=target)
    dist.destroy_process_group(group)
    return {s.stage_index: [p.grad for p in s.submod.parameters()] for s in own}


def alone(stages: int) -> list[list[Tensor]]:
    """The gradients of the same model in one process."""
    model = nn.Sequential(*(part(stage) for stage in range(stages)))
    x, target = batch(MICROBATCHES)
    nn.functional.mse_loss(model(x), target).backward()
    return [[p.grad for p in module.parameters()] for module in model]


@pytest.mark.parametrize("form", ["compute_only", "compute_comms"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_torch_runs_our_csv(pool: Pool, name: str, form: str, tmp_path: Path) -> None:
    if name in V_SHAPED and TORCH < (2, 12):
        pytest.skip("gloo of torch 2.11 cannot send to its own rank, as torch's runtime does")
    made = orders(name, RANKS, MICROBATCHES, default_chunks(name))
    written = sheet.compute_only if form == "compute_only" else sheet.with_communication
    (tmp_path / "schedule.csv").write_text(written(made))
    placed = made.rank_of_stage.tolist()
    stages = [[s for s, rank in enumerate(placed) if rank == r] for r in range(RANKS)]
    found: dict[int, Any] = {}
    for result in pool.run(run, str(tmp_path / "schedule.csv"), form, stages):
        found |= result or {}
    for stage, expected in enumerate(alone(made.stages)):
        for gradient, value in zip(found[stage], expected, strict=True):
            torch.testing.assert_close(gradient, value, rtol=1e-12, atol=1e-14)
