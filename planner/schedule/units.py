"""Units: what a rank starts together, and the lowering of torch.distributed.pipelining.

A unit is one action, or the forward and backward of an overlapped pair (dualpipev), written
`(2F3;5B1)OVERLAP_F_B`. The passes are those that torch runs before it executes a schedule, so
that both have the same list:

    add_unshards       gather a stage's weights before it is next in use, drop them when it is not
                       among the next three stages of the rank (FSDP)
    add_reductions     after the unit with a stage's last weight gradient
    add_communication  sends after the unit; a receive is posted on its rank the moment its send is
                       issued, ranks taking turns one unit at a time, so that a link's messages are
                       received in the order of sending
"""

from collections import Counter
from collections.abc import Iterable

from planner.schedule.action import Action, Grid, Kind
from planner.schedule.check import ScheduleError, awaited, placement, render
from planner.schedule.lowering import LAST_BACKWARD, messages
from planner.schedule.orders import Orders, grid

Unit = tuple[Action, ...]
Units = tuple[tuple[Unit, ...], ...]
"""The units of every rank."""

ACTIVE_STAGES = 3
"""torch's choice: one forward, one backward and one that is gathered ahead."""


def of_orders(made: Orders) -> Units:
    """The compute orders with their pairs joined."""
    found = []
    for start, order in zip(made.starts.tolist(), grid(made), strict=False):
        pairs = made.pairs[start : start + len(order)].tolist()
        joined = [False, *pairs[:-1]]
        ends = [order[i : i + 1 + pairs[i]] for i in range(len(order)) if not joined[i]]
        found.append(tuple(ends))
    return tuple(found)


def flat(units: Units) -> Grid:
    """The actions one by one, a pair's forward first, as torch executes them."""
    return tuple(tuple(action for unit in order for action in unit) for order in units)


def lower(made: Orders) -> Units:
    """What torch.distributed.pipelining executes for these orders."""
    return add_communication(add_reductions(add_unshards(of_orders(made)), made.microbatches))


def add_unshards(units: Units) -> Units:
    """Add UNSHARD and RESHARD so that each rank holds its next ACTIVE_STAGES stages gathered."""
    return tuple(_with_unshards(order) for order in units)


def _with_unshards(order: tuple[Unit, ...]) -> tuple[Unit, ...]:
    gathered: set[int] = set()
    lowered: list[Unit] = []
    for unit, following in zip(order, _next_stages(order, ACTIVE_STAGES), strict=True):
        lowered += _whole(Kind.RESHARD, sorted(gathered - set(following)))
        lowered += _whole(Kind.UNSHARD, (stage for stage in following if stage not in gathered))
        lowered.append(unit)
        gathered = set(following)
    return (*lowered, *_whole(Kind.RESHARD, sorted(gathered)))


def _whole(kind: Kind, stages: Iterable[int]) -> list[Unit]:
    return [(Action(stage, kind),) for stage in stages]


def _next_stages(order: tuple[Unit, ...], count: int) -> list[list[int]]:
    """At each unit, the next `count` stages in the order of their use."""
    following: list[int] = []
    found = []
    for unit in reversed(order):
        own = [action.stage for action in unit]
        following = [*own, *(stage for stage in following if stage not in own)]
        found.append(following[:count])
    return found[::-1]


def add_reductions(units: Units, microbatches: int) -> Units:
    """Add REDUCE_GRAD after the unit with the last weight gradient of each stage."""
    return tuple(_with_reductions(order, microbatches) for order in units)


def _with_reductions(order: tuple[Unit, ...], microbatches: int) -> tuple[Unit, ...]:
    made: Counter[int] = Counter()
    lowered: list[Unit] = []
    for unit in order:
        own = [action.stage for action in unit if action.kind in LAST_BACKWARD]
        made.update(own)
        done = [stage for stage in own if made[stage] == microbatches]
        lowered += [unit, *_whole(Kind.REDUCE_GRADIENT, done)]
    return tuple(lowered)


def add_communication(units: Units) -> Units:
    """Add sends, and receives as early as can be. Raises ScheduleError at a deadlock."""
    rank_of = placement(flat(units))
    lowered: list[list[Unit]] = [[] for _ in units]
    done: list[set[Action]] = [set() for _ in units]
    at, moved = [0] * len(units), True

    def add(rank: int, unit: Unit) -> None:
        lowered[rank].append(unit)
        done[rank].update(unit)

    while moved:
        moved = False
        for rank, order in enumerate(units):
            if at[rank] == len(order) or not _ready(order[at[rank]], rank_of, done[rank]):
                continue
            add(rank, order[at[rank]])
            for send, receive in _hops(order[at[rank]], rank_of):
                add(rank, (send,))
                add(rank_of[receive.stage], (receive,))
            at[rank] += 1
            moved = True
    _check_finished(units, at)
    return tuple(tuple(order) for order in lowered)


def _ready(unit: Unit, rank_of: dict[int, int], done: set[Action]) -> bool:
    needs = [awaited(action, rank_of, wired=True) for action in unit]
    return all(not need or any(action in done for action in need) for need in needs)


def _hops(unit: Unit, rank_of: dict[int, int]) -> list[tuple[Action, Action]]:
    """The sends of a unit, each with its receive."""
    found = []
    for action in unit:
        for kind in messages(action, rank_of)[1]:
            forward = kind == Kind.SEND_FORWARD
            stage = action.stage + (1 if forward else -1)
            receive = Kind.RECEIVE_FORWARD if forward else Kind.RECEIVE_BACKWARD
            k = action.microbatch
            found.append((Action(action.stage, kind, k), Action(stage, receive, k)))
    return found


def _check_finished(units: Units, at: list[int]) -> None:
    for rank, order in enumerate(units):
        if at[rank] < len(order):
            spot = sum(len(unit) for unit in order[: at[rank]])
            raise ScheduleError(
                f"deadlock: rank {rank} waits for ever at {'; '.join(map(str, order[at[rank]]))}\n"
                + render(flat(units), (rank, spot))
            )
