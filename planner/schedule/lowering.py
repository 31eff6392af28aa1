"""Lowering: from compute orders to what a rank really does. Pure passes, Grid -> Grid.

add_communication puts a receive before each action that needs a tensor from another stage and
a send after each that makes one. add_update ends each order with the reduction of gradients
(when dp or tied weights need one) and the optimiser.
"""

from planner.schedule import patterns
from planner.schedule.action import Action, Grid, Kind, Order


def lower(schedule: str, stages: int, microbatches: int) -> Grid:
    """The full action list of every pipeline rank for a named schedule."""
    return add_update(add_communication(patterns.PATTERNS[schedule](stages, microbatches)))


def add_communication(grid: Grid) -> Grid:
    """Add sends and receives of activations (F) and their gradients (B or I)."""
    last = max((action.stage for order in grid for action in order), default=0)
    return tuple(_with_communication(order, last) for order in grid)


def _with_communication(order: Order, last: int) -> Order:
    lowered: list[Action] = []
    for action in order:
        stage, k = action.stage, action.microbatch
        receives, sends = _neighbours(action, last)
        lowered += [Action(stage, kind, k) for kind in receives]
        lowered.append(action)
        lowered += [Action(stage, kind, k) for kind in sends]
    return tuple(lowered)


def _neighbours(action: Action, last: int) -> tuple[list[Kind], list[Kind]]:
    if action.kind == Kind.FORWARD:
        receives = [Kind.RECEIVE_FORWARD] if action.stage > 0 else []
        return receives, [Kind.SEND_FORWARD] if action.stage < last else []
    if action.kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
        receives = [Kind.RECEIVE_BACKWARD] if action.stage < last else []
        return receives, [Kind.SEND_BACKWARD] if action.stage > 0 else []
    return [], []


def add_update(grid: Grid) -> Grid:
    """End every order with the gradient reduction and the optimiser of its stages."""
    return tuple(order + _update(order) for order in grid)


def _update(order: Order) -> Order:
    stages = sorted({action.stage for action in order})
    reductions = tuple(Action(stage, Kind.REDUCE_GRADIENT) for stage in stages)
    return reductions + tuple(Action(stage, Kind.OPTIMIZER) for stage in stages)
