"""Check: a grid of actions is complete, ordered and free of deadlock, wherever its stages lie.

complete: every stage lies on one rank and runs F and B (or I and W) of every microbatch once.
ordered: a stage's forward precedes its backward, its backward its weight gradient, and what is
sent is computed before.
wired (where the grid has messages at all): between two ranks each tensor is sent once and received
once, a rank sends itself nothing, and messages of one direction and kind are received in the
order in which they were sent, because links deliver in order.
free of deadlock: sends never wait, receives wait for their send, and an action waits for the
tensor from its neighbouring stage; executing all ranks side by side must reach the end of every
order.
A violation raises ScheduleError, which prints the grid with the spot marked.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from planner.schedule.action import COMPUTE, RECEIVES, SENDS, Action, Grid, Kind

SOURCE = {
    Kind.RECEIVE_FORWARD: (Kind.SEND_FORWARD, -1),
    Kind.RECEIVE_BACKWARD: (Kind.SEND_BACKWARD, +1),
}
HALVES = (Kind.BACKWARD, Kind.INPUT_GRADIENT)
"""Either makes the gradient of a stage's input."""

BEFORE: dict[Kind, tuple[Kind, ...]] = {
    Kind.BACKWARD: (Kind.FORWARD,),
    Kind.INPUT_GRADIENT: (Kind.FORWARD,),
    Kind.WEIGHT_GRADIENT: (Kind.INPUT_GRADIENT,),
    Kind.SEND_FORWARD: (Kind.FORWARD,),
    Kind.SEND_BACKWARD: HALVES,
}
"""Kinds of which one must precede on the same stage and microbatch."""


FROM: dict[Kind, tuple[int, Kind, tuple[Kind, ...]]] = {
    Kind.FORWARD: (-1, Kind.RECEIVE_FORWARD, (Kind.FORWARD,)),
    Kind.BACKWARD: (+1, Kind.RECEIVE_BACKWARD, HALVES),
    Kind.INPUT_GRADIENT: (+1, Kind.RECEIVE_BACKWARD, HALVES),
}
"""The neighbouring stage whose tensor is needed, how it arrives, and what makes it there."""


class ScheduleError(ValueError):
    """A schedule that cannot be; for a grid, the message shows where."""


def check(grid: Grid, stages: int, microbatches: int) -> None:
    """Raise ScheduleError unless the grid is complete, ordered, wired and free of deadlock."""
    rank_of = placement(grid)
    _check_complete(grid, stages, microbatches)
    _check_order(grid)
    wired = any(action.kind in RECEIVES | SENDS for order in grid for action in order)
    if wired:
        _check_messages(grid, rank_of, stages, microbatches)
    _check_progress(grid, rank_of, wired)


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


def _places(grid: Grid) -> Iterator[tuple[int, int, Action]]:
    for rank, order in enumerate(grid):
        for position, action in enumerate(order):
            yield rank, position, action


def placement(grid: Grid) -> dict[int, int]:
    """The rank of every stage. Raises ScheduleError where a stage lies on two."""
    rank_of: dict[int, int] = {}
    for rank, position, action in _places(grid):
        if (first := rank_of.setdefault(action.stage, rank)) != rank:
            raise ScheduleError(
                f"rank {rank}: {action} belongs to stage {action.stage}, which rank {first} has\n"
                + render(grid, (rank, position))
            )
    return rank_of


def _check_complete(grid: Grid, stages: int, microbatches: int) -> None:
    counts = Counter(action for _, _, action in _places(grid) if action.kind in COMPUTE)
    for stage in range(stages):
        for k in range(microbatches):
            split = Action(stage, Kind.INPUT_GRADIENT, k) in counts
            backward = [Kind.INPUT_GRADIENT, Kind.WEIGHT_GRADIENT] if split else [Kind.BACKWARD]
            for kind in [Kind.FORWARD, *backward]:
                _check_once(grid, Action(stage, kind, k), counts)
    _check_none_left(grid, counts)


def _check_once(grid: Grid, action: Action, counts: Counter[Action]) -> None:
    if (found := counts.pop(action, 0)) != 1:
        marks = [(rank, position) for rank, position, other in _places(grid) if other == action]
        raise ScheduleError(
            f"{action} appears {found} times, must be once\n"
            + render(grid, marks[-1] if marks else None)
        )


def _check_none_left(grid: Grid, counts: Counter[Action]) -> None:
    for rank, position, action in _places(grid):
        if action in counts:
            raise ScheduleError(
                f"{action} does not belong to this schedule\n{render(grid, (rank, position))}"
            )


def _check_order(grid: Grid) -> None:
    done: set[Action] = set()
    for rank, position, action in _places(grid):
        before = [
            Action(action.stage, kind, action.microbatch) for kind in BEFORE.get(action.kind, ())
        ]
        if before and not any(other in done for other in before):
            raise ScheduleError(
                f"rank {rank}: {action} comes before {' or '.join(map(str, before))}\n"
                + render(grid, (rank, position))
            )
        done.add(action)


def _check_messages(grid: Grid, rank_of: dict[int, int], stages: int, microbatches: int) -> None:
    counts = Counter(a for _, _, a in _places(grid) if a.kind in RECEIVES | SENDS)
    for stage in range(stages - 1):
        for k in range(microbatches) if rank_of[stage] != rank_of[stage + 1] else ():
            for receive in (
                Action(stage + 1, Kind.RECEIVE_FORWARD, k),
                Action(stage, Kind.RECEIVE_BACKWARD, k),
            ):
                sent = send_of(receive)
                assert sent is not None
                _check_once(grid, sent, counts)
                _check_once(grid, receive, counts)
    _check_none_left(grid, counts)
    _check_delivery(grid, rank_of)


def _check_delivery(grid: Grid, rank_of: dict[int, int]) -> None:
    """Messages between two ranks, of one kind, are received in the order of sending."""
    waiting: dict[tuple[Kind, int, int], list[Action]] = defaultdict(list)
    for rank, _, action in _places(grid):
        sent = send_of(action)
        if sent is not None:
            waiting[sent.kind, rank_of[sent.stage], rank].append(sent)
    for (kind, source, rank), expected in waiting.items():
        queue = iter(expected)
        for position, action in enumerate(grid[source]):
            step = 1 if kind == Kind.SEND_FORWARD else -1
            if action.kind != kind or rank_of[action.stage + step] != rank:
                continue
            if (first := next(queue)) != action:
                raise ScheduleError(
                    f"rank {rank} receives {first} first, but rank {source} sends {action} first\n"
                    + render(grid, (source, position))
                )


def _check_progress(grid: Grid, rank_of: dict[int, int], wired: bool) -> None:
    done: set[Action] = set()
    position = [0] * len(grid)
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(grid):
            start = position[rank]
            while position[rank] < len(order):
                needed = awaited(order[position[rank]], rank_of, wired)
                if needed and not any(action in done for action in needed):
                    break
                done.add(order[position[rank]])
                position[rank] += 1
            moved = moved or position[rank] > start
    for rank, order in enumerate(grid):
        if position[rank] < len(order):
            raise ScheduleError(
                f"deadlock: rank {rank} waits for ever at {order[position[rank]]}\n"
                + render(grid, (rank, position[rank]))
            )


def awaited(action: Action, rank_of: dict[int, int], wired: bool) -> tuple[Action, ...]:
    """Actions of which one must be done first; none where nothing is awaited."""
    sent = send_of(action)
    if sent is not None:
        return (sent,)
    if action.kind not in FROM:
        return ()
    step, receive, made = FROM[action.kind]
    neighbour = action.stage + step
    if neighbour not in rank_of:
        return ()
    if wired and rank_of[neighbour] != rank_of[action.stage]:
        return (Action(action.stage, receive, action.microbatch),)
    return tuple(Action(neighbour, kind, action.microbatch) for kind in made)


def send_of(action: Action) -> Action | None:
    """The send that a receive waits for; None for any other action."""
    if action.kind not in SOURCE:
        return None
    kind, offset = SOURCE[action.kind]
    return Action(action.stage + offset, kind, action.microbatch)
