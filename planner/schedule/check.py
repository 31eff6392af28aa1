"""Check: a grid of actions is complete, ordered and free of deadlock.

complete: every stage runs F and B (or I and W) of every microbatch exactly once.
ordered: a stage's forward precedes its backward, its backward its weight gradient.
free of deadlock: sends never wait, receives wait for their send; executing all ranks side by
side must reach the end of every order.
A violation raises ScheduleError, which prints the grid with the spot marked.
"""

from collections import Counter

from planner.schedule.action import COMPUTE, RECEIVES, Action, Grid, Kind

SOURCE = {
    Kind.RECEIVE_FORWARD: (Kind.SEND_FORWARD, -1),
    Kind.RECEIVE_BACKWARD: (Kind.SEND_BACKWARD, +1),
}


class ScheduleError(ValueError):
    """A grid that cannot run; the message shows where."""


def check(grid: Grid, stages: int, microbatches: int) -> None:
    """Raise ScheduleError unless the grid is complete, ordered and free of deadlock."""
    _check_complete(grid, stages, microbatches)
    _check_order(grid)
    if any(action.kind in RECEIVES for order in grid for action in order):
        _check_progress(grid)


def render(grid: Grid, mark: tuple[int, int] | None = None) -> str:
    """One line per rank; the marked (rank, position) is set in >>arrows<<."""
    return "\n".join(
        f"rank {rank}: "
        + " ".join(
            f">>{action}<<" if (rank, position) == mark else str(action)
            for position, action in enumerate(order)
        )
        for rank, order in enumerate(grid)
    )


def _check_complete(grid: Grid, stages: int, microbatches: int) -> None:
    counts = Counter(action for order in grid for action in order if action.kind in COMPUTE)
    for stage in range(stages):
        for k in range(microbatches):
            split = Action(stage, Kind.INPUT_GRADIENT, k) in counts
            backward = [Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT] if split else [Kind.BACKWARD]
            for kind in [Kind.FORWARD, *backward]:
                if (found := counts.pop(Action(stage, kind, k), 0)) != 1:
                    raise ScheduleError(
                        f"{Action(stage, kind, k)} appears {found} times, must be once\n"
                        + render(grid)
                    )
    if counts:
        extra = next(iter(counts))
        raise ScheduleError(f"{extra} does not belong to this schedule\n{render(grid)}")


def _check_order(grid: Grid) -> None:
    for rank, order in enumerate(grid):
        done: set[Action] = set()
        for position, action in enumerate(order):
            before = _prerequisite(action)
            if before is not None and before not in done:
                raise ScheduleError(
                    f"rank {rank}: {action} comes before {before}\n"
                    + render(grid, (rank, position))
                )
            done.add(action)


def _prerequisite(action: Action) -> Action | None:
    if action.kind in (Kind.BACKWARD, Kind.INPUT_GRADIENT):
        return Action(action.stage, Kind.FORWARD, action.microbatch)
    if action.kind == Kind.WEIGHT_GRADIENT:
        return Action(action.stage, Kind.INPUT_GRADIENT, action.microbatch)
    return None


def _check_progress(grid: Grid) -> None:
    done: set[Action] = set()
    position = [0] * len(grid)
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(grid):
            while position[rank] < len(order) and _ready(order[position[rank]], done):
                done.add(order[position[rank]])
                position[rank] += 1
                moved = True
    for rank, order in enumerate(grid):
        if position[rank] < len(order):
            raise ScheduleError(
                f"deadlock: rank {rank} waits for ever at {order[position[rank]]}\n"
                + render(grid, (rank, position[rank]))
            )


def _ready(action: Action, done: set[Action]) -> bool:
    source = send_of(action)
    return source is None or source in done


def send_of(action: Action) -> Action | None:
    """The send that a receive waits for; None for any other action."""
    if action.kind not in SOURCE:
        return None
    kind, offset = SOURCE[action.kind]
    return Action(action.stage + offset, kind, action.microbatch)
