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
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

KINDS = "FBIW"
"""Forward, backward, and the two halves of a backward: gradients of the input, of the weights."""
FORWARD, BACKWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(4)

NONE = 0
"""The position before all actions; it ends at 0."""


class Orders(Protocol):
    """Compute orders of all ranks, rank by rank; starts: [ranks + 1]; the rest [n]."""

    ranks: int
    chunks: int
    microbatches: int
    starts: Ints
    kind: NDArray[np.int8]
    stage: NDArray[np.int32]
    microbatch: NDArray[np.int32]
    rank_of_stage: Ints


@dataclass(frozen=True)
class Script:
    """n actions at positions 1 .. n, by level; position 0 stands for "nothing".

    numbers: [n], the action (as numbered in orders) at each position. place: its inverse, the
    position of each action. previous, remote: [n], positions waited for. cell: [n], which entry
    of a [kinds, stages] table says how long it lasts. link: [n], the link that what it waits for
    crosses: s between the ranks of stages s and s+1, stages - 1 for none. cuts: [levels + 1],
    where levels begin among positions. finals: [stages], position of each stage's last backward.
    lasts: [ranks], position of each rank's last action.
    """

    orders: Orders
    numbers: Ints
    place: Ints
    previous: Ints
    remote: Ints
    cell: Ints
    link: Ints
    cuts: Ints
    finals: Ints
    lasts: Ints

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def stages(self) -> int:
        """Stages of the pipeline, over all ranks and chunks."""
        return self.orders.ranks * self.orders.chunks

    @property
    def width(self) -> float:
        """Actions per level."""
        return len(self) / (len(self.cuts) - 1)

    @functools.cached_property
    def crosses(self) -> NDArray[np.bool_]:
        """Whether stages s and s+1 lie on different ranks, [stages - 1]."""
        rank = np.asarray(self.orders.rank_of_stage)
        crosses: NDArray[np.bool_] = rank[1:] != rank[:-1]
        return crosses

    @functools.cached_property
    def levels(self) -> list[tuple[int, int, Ints, Ints, Ints]]:
        """Of every level: first and last + 1 position, and its previous, remote and link."""
        cuts = self.cuts.tolist()
        return [
            (a, b, *(x[a - 1 : b - 1] for x in (self.previous, self.remote, self.link)))
            for a, b in itertools.pairwise(cuts)
        ]

    @functools.cached_property
    def lists(self) -> tuple[list[int], list[int]]:
        """previous and remote as lists."""
        return self.previous.tolist(), self.remote.tolist()


class DeadlockError(RuntimeError):
    """Orders in which some rank waits for ever."""


def script(orders: Orders) -> Script:
    """The script of some orders, without a cache. Raises DeadlockError."""
    remote = _remote(orders)
    numbers, cuts = _by_level(orders, remote)
    count = len(numbers)
    place = np.empty(count + 1, np.int64)
    place[numbers], place[count] = np.arange(1, count + 1), NONE
    previous = np.arange(-1, count - 1)
    starts = np.asarray(orders.starts, np.int64)
    begun = starts[:-1][starts[:-1] < starts[1:]]
    previous[begun] = -1
    stages = orders.ranks * orders.chunks
    kind, stage = (np.asarray(x)[numbers].astype(np.int64) for x in (orders.kind, orders.stage))
    return Script(
        orders=orders,
        numbers=numbers,
        place=place[:count],
        previous=place[previous][numbers],
        remote=place[remote][numbers],
        cell=kind * stages + stage,
        link=_links(orders, kind, stage),
        cuts=cuts + 1,
        finals=place[_finals(orders)],
        lasts=place[starts[1:][starts[:-1] < starts[1:]] - 1],
    )


def _remote(orders: Orders) -> Ints:
    """The action that each one waits for on another stage (its own for W), -1 for none."""
    stages, count = orders.ranks * orders.chunks, len(orders.kind)
    kind, stage = np.asarray(orders.kind), np.asarray(orders.stage, np.int64)
    k = np.asarray(orders.microbatch, np.int64)
    # one stage more at each end, so that what lies beyond the pipeline is -1
    where = np.full((4, stages + 2, orders.microbatches), -1, np.int64)
    where[kind, stage + 1, k] = np.arange(count)
    gradient = np.maximum(where[BACKWARD], where[INPUT_GRADIENT])
    gradient[stages + 1] = where[FORWARD, stages]
    remote: Ints = where[FORWARD, stage, k]
    back = (kind == BACKWARD) | (kind == INPUT_GRADIENT)
    remote[back] = gradient[stage[back] + 2, k[back]]
    own = kind == WEIGHT_GRADIENT
    remote[own] = where[INPUT_GRADIENT, stage[own] + 1, k[own]]
    return remote


def _by_level(orders: Orders, remote: Ints) -> tuple[Ints, Ints]:
    """Actions in the order of their levels, and where levels begin."""
    count = len(remote)
    starts = np.asarray(orders.starts, np.int64)
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


def _links(orders: Orders, kind: Ints, stage: Ints) -> Ints:
    """The link between ranks that is crossed by what an action waits for; stages - 1: none."""
    stages, rank = orders.ranks * orders.chunks, np.asarray(orders.rank_of_stage)
    crosses = np.append(rank[1:] != rank[:-1], [False, False])
    link = np.where(
        kind == FORWARD, stage - 1, np.where(kind == WEIGHT_GRADIENT, stages - 1, stage)
    )
    result: Ints = np.where((link >= 0) & crosses[link], link, stages - 1)
    return result


def _finals(orders: Orders) -> Ints:
    """The last backward (B or W) of each stage, as numbered in orders."""
    kind, stage = np.asarray(orders.kind), np.asarray(orders.stage)
    numbers = np.flatnonzero((kind == BACKWARD) | (kind == WEIGHT_GRADIENT))
    finals = np.zeros(orders.ranks * orders.chunks, np.int64)
    np.maximum.at(finals, stage[numbers], numbers)
    return finals
