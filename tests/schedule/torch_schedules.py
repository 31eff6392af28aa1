"""What torch.distributed.pipelining builds, without a process group: the oracle of this room."""

from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed.pipelining import schedules as pipelining

CLASSES = {
    "gpipe": pipelining.ScheduleGPipe,
    "1f1b": pipelining.Schedule1F1B,
    "interleaved": pipelining.ScheduleInterleaved1F1B,
    "looped-bfs": pipelining.ScheduleLoopedBFS,
    "zb-h1": pipelining.ScheduleInterleavedZeroBubble,
    "interleaved-zb": pipelining.ScheduleInterleavedZeroBubble,
    "zbv": pipelining.ScheduleZBVZeroBubble,
    "dualpipev": pipelining.ScheduleDualPipeV,
}


def stage(ranks: int, chunks: int) -> Any:
    """As much of a PipelineStage as a schedule asks for."""
    return SimpleNamespace(
        group_size=ranks,
        group_rank=0,
        num_stages=ranks * chunks,
        is_last=False,
        submod=torch.nn.Identity(),
    )


def build(name: str, ranks: int, chunks: int, microbatches: int) -> Any:
    """torch's schedule. Raises ValueError where torch refuses."""
    stages = [stage(ranks, chunks) for _ in range(chunks)]
    if name in ("gpipe", "1f1b"):
        return CLASSES[name](stages[0], microbatches)
    return CLASSES[name](stages, microbatches)


def compute(schedule: Any) -> tuple[tuple[str, ...], ...]:
    """The compute actions of every rank in torch's notation, without its empty slots."""
    order = schedule.pipeline_order
    return tuple(
        tuple(str(action) for action in order[rank] if action is not None and action.is_compute_op)
        for rank in sorted(order)
    )
