"""Script: what every compute action of a pipeline waits for, as arrays sorted by level.

An action waits for the one before it on its rank, and for at most one other:

    F(s, k)    <- F(s-1, k)                                the activations of the stage before
    B, I(s, k) <- B or I(s+1, k); on the last stage F(s, k)    the gradient of the stage behind
    W(s, k)    <- I(s, k)                                  on its own rank, so never late

level(a) is when a starts if every action lasts 1 and messages take no time. Whatever an action
waits for lies on a lower level, so those of one level can be played at once, and the order by
level is a topological one. Levels come from playing that step by step: at each tick every rank
whose next action has all it waits for takes it. If none can, the order is a deadlock.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.schedule.action import BACKWARD, FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from planner.schedule.orders import ONE_CHUNK, Orders, orders

Ints = NDArray[np.int64]

NONE = 0
"""The position before all actions; it ends at 0."""


@dataclass(frozen=True)
class Script:
    """n actions at positions 1 .. n, by level; position 0 stands for "nothing".

    numbers: [n], the action (as numbered in orders) at each position. place: its inverse, the
    position of each action. previous, remote: [n], positions waited for. cell: [n], which entry
    of a [kinds, stages] table says how long it lasts. link: [n], the link that what it waits for
    crosses: s between the ranks of stages s and s+1, stages - 1 for none. pause: [n], the stage
    whose backward the action before completed, stages for none. cuts: [levels + 1], where levels
    begin among positions. finals: [stages], position of each stage's last backward.
    lasts: [ranks], position of each rank's last action.
    """

    orders: Orders
    numbers: Ints
    place: Ints
    previous: Ints
    remote: Ints
    cell: Ints
    link: Ints
    pause: Ints
    cuts: Ints
    finals: Ints
    lasts: Ints

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def stages(self) -> int:
        """Stages of the pipeline, over all ranks and chunks."""
        return self.orders.stages

    @property
    def width(self) -> float:
        """Actions per level."""
        return len(self) / (len(self.cuts) - 1)

    @functools.cached_property
    def crosses(self) -> NDArray[np.bool_]:
        """Whether stages s and s+1 lie on different ranks, [stages - 1]."""
        crosses: NDArray[np.bool_] = np.diff(self.orders.rank_of_stage) != 0
        return crosses

    @functools.cached_property
    def sources(self) -> Ints:
        """[n], the action on another rank whose message each action needs, itself if none;
        numbered as in orders."""
        sources = np.arange(len(self))
        sent = np.flatnonzero(self.link < self.stages - 1)
        sources[self.numbers[sent]] = self.numbers[self.remote[sent] - 1]
        return sources

    @functools.cached_property
    def links(self) -> Ints:
        """[n], the link that what each action needs crosses, stages - 1 for none; numbered as in
        orders."""
        links = np.empty(len(self), np.int64)
        links[self.numbers] = self.link
        return links

    @functools.cached_property
    def levels(self) -> list[tuple[int, int, Ints, Ints, Ints, Ints]]:
        """Of every level: first and last + 1 position, and its previous, remote, link, pause."""
        cuts, columns = self.cuts.tolist(), (self.previous, self.remote, self.link, self.pause)
        return [
            (a, b, *(column[a - 1 : b - 1] for column in columns))
            for a, b in itertools.pairwise(cuts)
        ]

    @functools.cached_property
    def lists(self) -> tuple[list[int], list[int]]:
        """previous and remote as lists."""
        return self.previous.tolist(), self.remote.tolist()


class DeadlockError(RuntimeError):
    """Orders in which some rank waits for ever."""


@functools.lru_cache(maxsize=64)
def script(schedule: str, ranks: int, microbatches: int, chunks: int = 1) -> Script:
    """The script of a named schedule; 1f1b and the like of several chunks are their counterparts.

    Raises ScheduleError where the schedule cannot have these numbers.
    """
    name = ONE_CHUNK.get(schedule, schedule) if chunks > 1 else schedule
    return compiled(orders(name, ranks, microbatches, chunks))


def compiled(made: Orders) -> Script:
    """The script of any orders. Raises DeadlockError."""
    remote = _remote(made)
    numbers, cuts = _by_level(made, remote)
    count, stages = len(made), made.stages
    place = np.empty(count + 1, np.int64)
    place[numbers], place[count] = np.arange(1, count + 1), NONE
    begun = made.starts[:-1] < made.starts[1:]
    previous = np.arange(-1, count - 1)
    previous[made.starts[:-1][begun]] = -1
    kind, stage = (column[numbers].astype(np.int64) for column in (made.kind, made.stage))
    finals = _finals(made)
    pause = np.full(count + 1, stages, np.int64)
    pause[finals + 1] = np.arange(stages)
    pause[made.starts[:-1]] = stages
    return Script(
        orders=made,
        numbers=numbers,
        place=place[:count],
        previous=place[previous][numbers],
        remote=place[remote][numbers],
        cell=kind * stages + stage,
        link=_links(made, kind, stage),
        pause=pause[numbers],
        cuts=cuts + 1,
        finals=place[finals],
        lasts=place[made.starts[1:][begun] - 1],
    )


def _remote(made: Orders) -> Ints:
    """The action that each one waits for on another stage (its own for W), -1 for none."""
    stages, count = made.stages, len(made)
    kind, stage = made.kind, made.stage.astype(np.int64)
    k = made.microbatch.astype(np.int64)
    # one stage more at each end, so that what lies beyond the pipeline is -1
    where = np.full((4, stages + 2, made.microbatches), -1, np.int64)
    where[kind, stage + 1, k] = np.arange(count)
    gradient = np.maximum(where[BACKWARD], where[INPUT_GRADIENT])
    gradient[stages + 1] = where[FORWARD, stages]
    remote: Ints = where[FORWARD, stage, k]
    back = (kind == BACKWARD) | (kind == INPUT_GRADIENT)
    remote[back] = gradient[stage[back] + 2, k[back]]
    own = kind == WEIGHT_GRADIENT
    remote[own] = where[INPUT_GRADIENT, stage[own] + 1, k[own]]
    return remote


def _by_level(made: Orders, remote: Ints) -> tuple[Ints, Ints]:
    """Actions in the order of their levels, and where levels begin."""
    count = len(remote)
    starts = made.starts
    # action `count` is what a rank does when it has finished: it waits for itself, for ever
    waits = np.append(np.where(remote < 0, count + 1, remote), count)
    done = np.zeros(count + 2, np.bool_)
    done[count + 1] = True
    behind = np.arange(1, count + 2)
    behind[starts[1:] - 1] = behind[count] = count
    at = np.where(starts[:-1] < starts[1:], starts[:-1], count)
    taken, cuts, played = [], [0], 0
    while played < count:
        ready = done[waits[at]]
        now = at[ready]
        if not len(now):
            raise DeadlockError(f"{count - played} of {count} actions can never start")
        done[now] = True
        at[ready] = behind[now]
        played += len(now)
        taken.append(now)
        cuts.append(played)
    return np.concatenate([np.empty(0, np.int64), *taken]), np.array(cuts)


def _links(made: Orders, kind: Ints, stage: Ints) -> Ints:
    """The link between ranks that is crossed by what an action waits for; stages - 1: none."""
    stages, rank = made.stages, made.rank_of_stage
    crosses = np.append(rank[1:] != rank[:-1], [False, False])
    link = np.where(
        kind == FORWARD, stage - 1, np.where(kind == WEIGHT_GRADIENT, stages - 1, stage)
    )
    result: Ints = np.where((link >= 0) & crosses[link], link, stages - 1)
    return result


def _finals(made: Orders) -> Ints:
    """The last backward (B or W) of each stage, as numbered in orders."""
    kind, stage = made.kind, made.stage
    numbers = np.flatnonzero((kind == BACKWARD) | (kind == WEIGHT_GRADIENT))
    finals = np.zeros(made.stages, np.int64)
    np.maximum.at(finals, stage[numbers], numbers)
    return finals
