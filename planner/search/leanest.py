"""Leanest: why no plan fits, told by the leanest choice there is."""

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.memory import stage_memory
from planner.search.ranking import NoPlanError
from planner.spec.units import format_bytes


def nothing_fits(
    blocks: Blocks, leanest: Candidates, tried: int, limit_bytes: float
) -> NoPlanError:
    """Which rank of the leanest plan (a table of one row) breaks the limit, with which bytes."""
    memory = stage_memory(BlockTables(blocks, leanest))
    stage = int(memory.total[0].argmax())
    needed = float(memory.total[0, stage])
    parts = sorted(memory.of_stage(0, stage).items(), key=lambda item: -item[1])[:3]
    split = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts)
    return NoPlanError(
        f"no plan fits: device memory is the limit, {format_bytes(limit_bytes)}.",
        f"The leanest of {tried} plans ({leanest.layout(0)}) needs {format_bytes(needed)} on "
        f"stage {stage} ({split}).",
    )
