"""V-shaped schedules as blocks: what one rank repeats, each time with the next microbatch.

Rank r of p holds stage r (chunk 0, on the way down) and stage 2p-1-r (chunk 1, on the way up).
A block is a count and its parts; a part is (chunk, kind, first microbatch, whether a pair of a
forward and a backward begins). So a rank's order is about ten blocks, whatever m is.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from planner.schedule.action import BACKWARD, FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT

Ints = NDArray[np.int64]
Part = tuple[int, int, int, bool]
Block = tuple[int, list[Part]]


def columns(schedule: str, p: int, m: int) -> tuple[Ints, Ints]:
    """Lengths of the orders [p] and their columns kind, stage, microbatch, pair: [n, 4]."""
    blocks_of = {"zbv": _zbv, "dualpipev": _dualpipev}[schedule]
    found = []
    for rank in range(p):
        rows = np.concatenate([_repeated(times, parts) for times, parts in blocks_of(p, m, rank)])
        chunk, kind, microbatch, pair = rows[rows[:, 2] < m].T
        stage = np.where(chunk == 0, rank, 2 * p - 1 - rank)
        found.append(np.stack([kind, stage, microbatch, pair], axis=1))
    return np.array([len(rows) for rows in found]), np.concatenate(found)


def _repeated(times: int, parts: Iterable[Part]) -> Ints:
    once = np.array(tuple(parts), dtype=np.int64)
    step = np.arange(times)[:, None, None] * np.array([0, 0, 1, 0])
    result: Ints = (once[None] + step).reshape(-1, 4)
    return result


def _forward(chunk: int, first: int, pair: bool = False) -> Part:
    return chunk, FORWARD, first, pair


def _backward(chunk: int, first: int) -> Part:
    return chunk, BACKWARD, first, False


def _input(chunk: int, first: int) -> Part:
    return chunk, INPUT_GRADIENT, first, False


def _weight(chunk: int, first: int) -> Part:
    return chunk, WEIGHT_GRADIENT, first, False


def _split(chunk: int, first: int) -> list[Part]:
    return [_input(chunk, first), _weight(chunk, first)]


def _zbv(p: int, m: int, r: int) -> list[Block]:
    """ZB-V. It is made for n >= 2p-1 microbatches; those beyond m are dropped afterwards."""
    n = max(2 * p - 1, m)
    ahead, steady = 2 * (p - r) - 1, n - 2 * p + r + 1

    def turn(done: int) -> list[Part]:
        return [*_split(0, done), _forward(1, p + done), *_split(1, p - r + done)]

    return [
        (ahead, [_forward(0, 0)]),
        (r, [_forward(1, 0), _forward(0, ahead)]),
        (p - r, [_forward(1, r), *_split(1, 0)]),
        (steady, [_forward(0, ahead + r), *turn(0)]),
        (p - r - 1, turn(steady)),
        (r, [_input(0, n - p), _input(1, n - r)]),
        (p - r, [_input(0, n - p + r), _weight(0, n - p)]),
        (r, [_weight(1, n - r)]),
        (r, [_weight(0, n - r)]),
    ]


def _dualpipev(p: int, m: int, r: int) -> list[Block]:
    """DualPipeV for m >= 2p: fill, then pairs of the two chunks, then drain."""
    below, steady = p - r - 1, m - 2 * p + r + 1
    last = int(r == p - 1)  # its first forward and backward of the steady part stay apart

    def turn(done: int, pair: bool) -> list[Part]:
        down = [_forward(0, m - steady + done, pair), _backward(1, below + done)]
        return [*down, _forward(1, p + done, pair=True), _backward(0, done)]

    up = [_backward(1, below + steady), _forward(1, p + steady, pair=True), _backward(0, steady)]
    return [
        (2 * below, [_forward(0, 0)]),
        (r + 1, [_forward(0, 2 * below), _forward(1, 0)]),
        (below, [*_split(1, 0), _forward(1, r + 1)]),
        (last, turn(0, pair=False)),
        (steady - last, turn(last, pair=True)),
        (below, up),
        *_dualpipev_drain(p, m, r),
    ]


def _dualpipev_drain(p: int, m: int, r: int) -> list[Block]:
    """r+1 backwards of chunk 1 and p of chunk 0 are left; from their middle on they are split.

    The weight gradients wait in a queue: one before each of the last backwards of chunk 0, the
    rest at the end.
    """
    left = [
        (chunk, first + i) for i in range(r + 1) for chunk, first in ((1, m - r - 1), (0, m - p))
    ]
    whole, split = left[: r + 1], left[r + 1 :]
    last = [(0, m - p + i) for i in range(r + 1, p)]
    queue = [_weight(*place) for place in split + last]
    blocks: list[Block] = [(1, [_backward(*place)]) for place in whole]
    blocks += [(1, [_input(*place)]) for place in split]
    blocks += [(1, [weight, _input(*place)]) for weight, place in zip(queue, last, strict=False)]
    return blocks + [(1, [weight]) for weight in queue[len(last) :]]
