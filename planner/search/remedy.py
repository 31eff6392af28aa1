"""Remedy: why no plan fits, told by the leanest one, and what would help."""

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.memory import stage_memory
from planner.spec.units import format_bytes


def leanest_plan(blocks: Blocks, leanest: Candidates, tried: int, limit_bytes: float) -> str:
    """Which rank of the leanest plan (a table of one row) breaks the limit, with which bytes."""
    memory = stage_memory(BlockTables(blocks, leanest))
    stage = int(memory.total[0].argmax())
    needed = float(memory.total[0, stage])
    parts = sorted(memory.of_stage(0, stage).items(), key=lambda item: -item[1])[:3]
    split = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts)
    return (
        f"no plan fits: device memory is the limit. The leanest of {tried} plans "
        f"({leanest.layout(0)}) needs {format_bytes(needed)} of {format_bytes(limit_bytes)} on "
        f"stage {stage} ({split}). "
        + _remedy(blocks, memory.of_stage(0, stage), needed, limit_bytes)
    )


def _remedy(blocks: Blocks, parts: dict[str, float], needed: float, capacity: float) -> str:
    states = parts["weights"] + parts["gradients"] + parts["optimizer"]
    helps = []
    if states > capacity / 2:
        helps.append(
            f"about {int(np.ceil(needed / capacity)) * blocks.cluster.devices} such devices "
            f"(weights, gradients and optimizer alone take {format_bytes(states)})"
        )
    if parts["activations"] + parts["logits"] > capacity / 4:
        helps.append("a shorter --seq-len")
    if max(blocks.runtime.zero_stages) < 3 and states > capacity / 2:
        helps.append("a runtime with ZeRO 2 or 3")
    helps.append(f"devices with at least {format_bytes(needed)} of memory")
    return "What would help: " + "; or ".join(helps) + "."
