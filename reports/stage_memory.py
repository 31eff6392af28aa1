"""Stage memory: the promised bytes of a rank at every place of the pipeline, by purpose.

A place holds one stage, or as many as it has chunks. A plan keeps the split of its fullest only;
that of the others is computed again from what the plan carries. If the cost model has changed since
the plan was made, the new split would not sum to the old promise; then a place shows its promise
unsplit.
"""

import math

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.memory import stage_memory
from planner.spec.plan import Plan, Prediction


def memory_by_stage(plan: Plan) -> tuple[dict[str, float], ...]:
    """Bytes by purpose of every place, summing to its promised peak; () without a prediction."""
    if plan.predicted is None:
        return ()
    again = _computed(plan)
    promised = plan.predicted.stage_peak_bytes
    return tuple(
        split
        if math.isclose(sum(split.values()), peak, rel_tol=1e-6)
        else _kept(plan.predicted, peak)
        for split, peak in zip(again, promised, strict=True)
    )


def _computed(plan: Plan) -> list[dict[str, float]]:
    candidates = Candidates.of_plan(
        plan.layout, plan.stages, plan.workload.global_batch, plan.model
    )
    memory = stage_memory(BlockTables(Blocks.of_plan(plan), candidates))
    return [memory.of_stage(0, place) for place in range(plan.layout.pp)]


def _kept(predicted: Prediction, peak: float) -> dict[str, float]:
    return dict(predicted.memory) if peak == predicted.peak_bytes else {"in all": peak}
