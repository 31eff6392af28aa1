"""Orders written by hand, and the slow true way to play any."""

import heapq

import numpy as np
from numpy.typing import NDArray

from planner.schedule.orders import Orders

KINDS = "FBIW"

Move = tuple[str, int, int]
"""(kind, stage, microbatch)."""


def made(lists: list[list[Move]], chunks: int, microbatches: int) -> Orders:
    """Orders from one list of moves per rank."""
    ranks = len(lists)
    flat = [move for order in lists for move in order]
    return Orders(
        schedule="by hand",
        ranks=ranks,
        chunks=chunks,
        microbatches=microbatches,
        starts=np.cumsum([0, *map(len, lists)]),
        kind=np.array([KINDS.index(kind) for kind, _, _ in flat], np.int8),
        stage=np.array([stage for _, stage, _ in flat], np.int32),
        microbatch=np.array([k for _, _, k in flat], np.int32),
        pairs=np.zeros(len(flat), np.bool_),
        rank_of_stage=np.arange(ranks * chunks) % ranks,
    )


def heap_ends(
    orders: Orders,
    durations: NDArray[np.float64],
    latency: list[float],
    pauses: list[float] | None = None,
) -> list[float]:
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
        left[s] -= kind in (1, 3)
        heapq.heappush(events, (end, number))

    running = [False] * orders.ranks
    left = [orders.microbatches] * stages

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
        s = moves[number][1]
        if pauses is not None and left[s] == 0 and moves[number][0] in (1, 3):
            free[r] = now + pauses[s]
        try_begin(r)
        for follower in wakes.get(number, ()):
            try_begin(rank_at[follower])
    assert all(end is not None for end in ends)
    return [end for end in ends if end is not None]
