"""Lowering: from compute orders to what a rank really does. Pure passes, Grid -> Grid.

add_reductions puts the reduction of a stage's gradients right after its last weight gradient (B or
W), so that it can run beside what is left of the other chunks. add_communication puts a receive
before each action that needs a tensor from another rank and a send after each that makes one;
neighbouring stages on one rank (the turn of a V) exchange no message. add_updates ends each order
with the optimiser of its stages.

Receives stand as late as can be; torch places them as early as can be.
"""

from planner.schedule import patterns
from planner.schedule.action import Action, Grid, Kind, Order
from planner.schedule.check import placement

LAST_BACKWARD = frozenset({Kind.BACKWARD, Kind.WEIGHT_GRADIENT})
"""After the last of these, a stage's gradients are complete."""


def lower(schedule: str, ranks: int, microbatches: int, chunks: int | None = None) -> Grid:
    """The full action list of every pipeline rank for a named schedule. Raises ScheduleError."""
    compute = patterns.pattern(schedule, ranks, microbatches, chunks)
    return add_updates(add_communication(add_reductions(compute)))


def add_reductions(grid: Grid) -> Grid:
    """Reduce the gradients of each stage once its last weight gradient is made."""
    return tuple(_with_reductions(order) for order in grid)


def _with_reductions(order: Order) -> Order:
    ends = {a.stage: i for i, a in enumerate(order) if a.kind in LAST_BACKWARD}
    lowered: list[Action] = []
    for i, action in enumerate(order):
        lowered.append(action)
        if ends.get(action.stage) == i:
            lowered.append(Action(action.stage, Kind.REDUCE_GRADIENT))
    return tuple(lowered)


def add_communication(grid: Grid) -> Grid:
    """Add sends and receives of activations (F) and their gradients (B or I)."""
    rank_of = placement(grid)
    return tuple(_with_communication(order, rank_of) for order in grid)


def _with_communication(order: Order, rank_of: dict[int, int]) -> Order:
    lowered: list[Action] = []
    for action in order:
        stage, k = action.stage, action.microbatch
        receives, sends = messages(action, rank_of)
        lowered += [Action(stage, kind, k) for kind in receives]
        lowered.append(action)
        lowered += [Action(stage, kind, k) for kind in sends]
    return tuple(lowered)


def messages(action: Action, rank_of: dict[int, int]) -> tuple[list[Kind], list[Kind]]:
    """What an action must receive before and send afterwards."""
    here = rank_of[action.stage]
    below = rank_of.get(action.stage - 1, here) != here
    above = rank_of.get(action.stage + 1, here) != here
    if action.kind == Kind.FORWARD:
        return [Kind.RECEIVE_FORWARD] * below, [Kind.SEND_FORWARD] * above
    if action.kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
        return [Kind.RECEIVE_BACKWARD] * above, [Kind.SEND_BACKWARD] * below
    return [], []


def add_updates(grid: Grid) -> Grid:
    """End every order with the optimiser of its stages."""
    return tuple(order + _update(order) for order in grid)


def _update(order: Order) -> Order:
    stages = sorted({action.stage for action in order})
    return tuple(Action(stage, Kind.OPTIMIZER) for stage in stages)
