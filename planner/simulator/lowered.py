"""Script: the actions of a schedule as arrays, made once per (schedule, stages, microbatches).

Actions are numbered rank by rank. Each one has at most two predecessors: the action before it on
its rank, and for a receive the send it waits for. The optimisers wait for all reductions
besides. `sequence` is an order in which every action comes after its predecessors, so that a
replay without shared resources is one pass:

    end(a) = max(end(previous(a)), end(remote(a))) + seconds(a)
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.schedule import lowering
from planner.schedule.action import Action, Grid, Kind
from planner.schedule.check import send_of

KINDS = tuple(Kind)
NONE = -1

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Script:
    """Arrays over all actions: kind (index into KINDS), stage, previous and remote (or NONE).

    sequence: numbers of all actions but the optimisers, predecessors first.
    """

    grid: Grid
    kind: Ints
    stage: Ints
    previous: list[int]
    remote: list[int]
    sequence: list[int]
    reductions: list[int]
    optimizers: list[int]

    def __len__(self) -> int:
        return len(self.previous)


@functools.lru_cache(maxsize=32)
def script(schedule: str, stages: int, microbatches: int) -> Script:
    """The script of a named schedule."""
    grid = lowering.lower(schedule, stages, microbatches)
    flat = [action for order in grid for action in order]
    where = {action: number for number, action in enumerate(flat)}
    sources = [send_of(action) for action in flat]
    remote = [NONE if source is None else where[source] for source in sources]
    previous = [number - 1 for number in range(len(flat))]
    first = 0
    for order in grid:
        previous[first] = NONE
        first += len(order)
    number_of = {kind: number for number, kind in enumerate(KINDS)}
    return Script(
        grid=grid,
        kind=np.array([number_of[action.kind] for action in flat], dtype=np.int64),
        stage=np.array([action.stage for action in flat], dtype=np.int64),
        previous=previous,
        remote=remote,
        sequence=_sequence(grid, remote),
        reductions=_numbers(flat, Kind.REDUCE_GRADIENT),
        optimizers=_numbers(flat, Kind.OPTIMIZER),
    )


def _numbers(flat: Sequence[Action], kind: Kind) -> list[int]:
    return [number for number, action in enumerate(flat) if action.kind == kind]


def _sequence(grid: Grid, remote: Sequence[int]) -> list[int]:
    """Go round the ranks, each as far as its receives allow; the optimisers stay out."""
    spans, first = [], 0
    for order in grid:
        spans.append([first, first + len(order) - 1])
        first += len(order)
    done = bytearray(first)
    sequence: list[int] = []
    moved = True
    while moved:
        moved = False
        for span in spans:
            number, last = span
            while number < last and (remote[number] == NONE or done[remote[number]]):
                done[number] = 1
                sequence.append(number)
                number += 1
            moved = moved or number > span[0]
            span[0] = number
    return sequence


def play(script: Script, seconds: Sequence[float]) -> list[tuple[float, float]]:
    """Start and end of every action when nothing is shared; one pass over the sequence."""
    ends = [0.0] * (len(script) + 1)
    previous, remote = script.previous, script.remote
    for number in script.sequence:
        # NONE is the last entry, which stays 0
        before, sent = ends[previous[number]], ends[remote[number]]
        ends[number] = (before if before > sent else sent) + seconds[number]
    ready = max(ends[number] for number in script.reductions)
    for number in script.optimizers:
        ends[number] = ready + seconds[number]
    return [(end - length, end) for end, length in zip(ends, seconds, strict=False)]
