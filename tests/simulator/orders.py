"""Orders of plain schedules, and the slow true way to play them."""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.simulator.script import KINDS

Move = tuple[str, int, int]
"""(kind, stage, microbatch)."""


@dataclass(frozen=True)
class Orders:
    ranks: int
    chunks: int
    microbatches: int
    starts: NDArray[np.int64]
    kind: NDArray[np.int8]
    stage: NDArray[np.int32]
    microbatch: NDArray[np.int32]
    rank_of_stage: NDArray[np.int64]


def made(lists: list[list[Move]], chunks: int, microbatches: int) -> Orders:
    """Orders from one list of moves per rank."""
    ranks = len(lists)
    flat = [move for order in lists for move in order]
    return Orders(
        ranks=ranks,
        chunks=chunks,
        microbatches=microbatches,
        starts=np.cumsum([0, *map(len, lists)]),
        kind=np.array([KINDS.index(kind) for kind, _, _ in flat], np.int8),
        stage=np.array([stage for _, stage, _ in flat], np.int32),
        microbatch=np.array([k for _, _, k in flat], np.int32),
        rank_of_stage=np.arange(ranks * chunks) % ranks,
    )


def gpipe(p: int, m: int) -> Orders:
    return made([[(kind, s, k) for kind in "FB" for k in range(m)] for s in range(p)], 1, m)


def one_f_one_b(p: int, m: int) -> Orders:
    return made([_alternating(s, min(p - s, m), m) for s in range(p)], 1, m)


def _alternating(s: int, ahead: int, m: int) -> list[Move]:
    moves: list[Move] = [("F", s, k) for k in range(ahead)]
    for k in range(m):
        moves.append(("B", s, k))
        moves += [("F", s, ahead + k)] if ahead + k < m else []
    return moves


def zero_bubble(p: int, m: int) -> Orders:
    """ZB-H1: 1F1B with the weight gradients of rank r put off by r microbatches."""
    lists: list[list[Move]] = []
    for s, order in enumerate([_alternating(s, min(p - s, m), m) for s in range(p)]):
        moves: list[Move] = []
        for kind, _, k in order:
            moves.append(("I" if kind == "B" else "F", s, k))
            moves += [("W", s, k - s)] if kind == "B" and k >= s else []
        moves += [("W", s, k) for k in range(max(m - s, 0), m)]
        lists.append(moves)
    return made(lists, 1, m)


def interleaved(p: int, v: int, m: int) -> Orders:
    """Narayanan et al. 2021; m a multiple of p."""

    def nth(j: int) -> tuple[int, int]:
        turn, within = divmod(j, p * v)
        return within // p, turn * p + within % p

    lists = []
    for rank in range(p):
        ahead: list[Move] = [("F", nth(j)[0] * p + rank, nth(j)[1]) for j in range(m * v)]
        back: list[Move] = [("B", (v - 1 - nth(j)[0]) * p + rank, nth(j)[1]) for j in range(m * v)]
        warm = min(2 * (p - 1 - rank) + (v - 1) * p, m * v)
        paired = [move for pair in zip(ahead[warm:], back, strict=False) for move in pair]
        lists.append(ahead[:warm] + paired + back[m * v - warm :])
    return made(lists, v, m)


def heap_ends(orders: Orders, durations: NDArray[np.float64], latency: list[float]) -> list[float]:
    """Ends of all actions by a plain event simulation: the oracle."""
    stages = orders.ranks * orders.chunks
    rank_of = np.asarray(orders.rank_of_stage).tolist()
    moves = list(
        zip(orders.kind.tolist(), orders.stage.tolist(), orders.microbatch.tolist(), strict=True)
    )
    where = {move: number for number, move in enumerate(moves)}
    starts = np.asarray(orders.starts).tolist()

    def needed(kind: int, s: int, k: int) -> tuple[int | None, float]:
        if kind == 0:
            source = where.get((0, s - 1, k))
            link = s - 1
        elif kind == 3:
            return where[2, s, k], 0.0
        elif s == stages - 1:
            return where[0, s, k], 0.0
        else:
            source = where.get((1, s + 1, k), where.get((2, s + 1, k)))
            link = s
        if source is None or rank_of[link] == rank_of[link + 1]:
            return source, 0.0
        return source, latency[link]

    needs = [needed(*move) for move in moves]
    wakes: dict[int, list[int]] = {}
    for number, (source, _) in enumerate(needs):
        if source is not None:
            wakes.setdefault(source, []).append(number)
    rank_at = {number: r for r in range(orders.ranks) for number in range(starts[r], starts[r + 1])}
    ends: list[float | None] = [None] * len(moves)
    free, at = [0.0] * orders.ranks, starts[:-1]
    events: list[tuple[float, int]] = []

    def begin(r: int) -> None:
        if at[r] == starts[r + 1]:
            return
        source, lag = needs[at[r]]
        sent = 0.0 if source is None else ends[source]
        if sent is None:
            return
        number = at[r]
        at[r] += 1
        kind, s, _ = moves[number]
        end = max(free[r], sent + lag) + float(durations[kind, s])
        heapq.heappush(events, (end, number))

    running = [False] * orders.ranks

    def try_begin(r: int) -> None:
        if not running[r]:
            before = at[r]
            begin(r)
            running[r] = at[r] > before

    for r in range(orders.ranks):
        try_begin(r)
    while events:
        now, number = heapq.heappop(events)
        r = rank_at[number]
        ends[number], free[r], running[r] = now, now, False
        try_begin(r)
        for follower in wakes.get(number, ()):
            try_begin(rank_at[follower])
    assert all(end is not None for end in ends)
    return [end for end in ends if end is not None]
