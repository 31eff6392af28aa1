"""Pipeline: cut the model to a rank's stages, and which sends a receive proves to have arrived.

The first stage holds the embedding, the last the head and the loss; a stage may hold no layer.
What travels between stages has the shape [micro_batch, seq_len / tp, hidden].
"""

from collections.abc import Sequence

from executor.transformer.model import Part, Transformer
from planner.schedule.action import RECEIVES, SENDS, Action, Grid
from planner.schedule.check import placement, send_of
from planner.spec.plan import Plan


def cut(model: Transformer, plan: Plan, stages: Sequence[int]) -> None:
    """Remove from a whole model everything that the stages do not hold."""
    kept = {name for stage in stages for name in _layers(plan, stage)}
    for name in [name for name in model.layers if name not in kept]:
        del model.layers[name]
    if 0 not in stages:
        model.embedding = None
    if len(plan.stages) - 1 not in stages:
        model.head = None


def part(model: Transformer, plan: Plan, stage: int) -> Part:
    """One stage of a model that holds it."""
    return model.part(_layers(plan, stage), stage == 0, stage == len(plan.stages) - 1)


def _layers(plan: Plan, stage: int) -> list[str]:
    own = plan.stages[stage]
    return [str(own.first_layer + i) for i in range(len(own.layers))]


def travelling_shape(plan: Plan) -> tuple[int, int, int]:
    """Shape of an activation (and of its gradient) between stages."""
    layout = plan.layout
    return layout.micro_batch, plan.workload.seq_len // (layout.tp * layout.cp), plan.model.hidden


def settled_sends(grid: Grid, rank: int) -> dict[Action, tuple[Action, ...]]:
    """For every receive of a pipeline rank, its own sends that the sender had received by then.

    A message from a neighbour proves that the neighbour has taken everything that stands before
    it in the neighbour's order; those sends can be let go without waiting.
    """
    settled: dict[Action, tuple[Action, ...]] = {}
    rank_of = placement(grid)
    open_sends = [action for action in grid[rank] if action.kind in SENDS]
    for receive in (action for action in grid[rank] if action.kind in RECEIVES):
        sent = send_of(receive)
        assert sent is not None
        order = grid[rank_of[sent.stage]]
        taken = {send_of(action) for action in order[: order.index(sent)]}
        settled[receive] = tuple(action for action in open_sends if action in taken)
        open_sends = [action for action in open_sends if action not in taken]
    return settled
