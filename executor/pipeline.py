"""Pipeline: cut the model to one stage, and which sends a receive proves to have arrived.

The first stage holds the embedding, the last the head and the loss; a stage may hold no layer.
What travels between stages has the shape [micro_batch, seq_len / tp, hidden].
"""

from executor.model import Transformer
from planner.schedule.action import RECEIVES, SENDS, Action, Grid
from planner.schedule.check import send_of
from planner.spec.plan import Plan


def cut(model: Transformer, plan: Plan, index: int) -> None:
    """Remove from a whole model everything that stage `index` does not hold."""
    stage = plan.stages[index]
    kept = {str(stage.first_layer + i) for i in range(len(stage.layers))}
    for name in [name for name in model.layers if name not in kept]:
        del model.layers[name]
    if index > 0:
        model.embedding = None
    if index < len(plan.stages) - 1:
        model.head = None


def travelling_shape(plan: Plan) -> tuple[int, int, int]:
    """Shape of an activation (and of its gradient) between stages."""
    layout = plan.layout
    return layout.micro_batch, plan.workload.seq_len // layout.tp, plan.model.hidden


def settled_sends(grid: Grid, stage: int) -> dict[Action, tuple[Action, ...]]:
    """For every receive of a stage, its own sends that the sender had received by then.

    A message from a neighbour proves that the neighbour has taken everything that stands before
    it in the neighbour's order; those sends can be let go without waiting.
    """
    settled: dict[Action, tuple[Action, ...]] = {}
    open_sends = [action for action in grid[stage] if action.kind in SENDS]
    for receive in (action for action in grid[stage] if action.kind in RECEIVES):
        sent = send_of(receive)
        assert sent is not None
        order = grid[sent.stage]
        taken = {send_of(action) for action in order[: order.index(sent)]}
        settled[receive] = tuple(action for action in open_sends if action in taken)
        open_sends = [action for action in open_sends if action not in taken]
    return settled
