"""Static order: the exact end of every stage of many plans at once.

Rank i runs its actions in a fixed order; with w_i = min(p - i, m) and microbatches k:

    gpipe   F_0 .. F_{m-1}, B_0 .. B_{m-1}
    1f1b    F_0 .. F_{w-1}, then B_k, F_{w+k} for k = 0 .. m-1
    zb-h1   as 1f1b with I_k for B_k, and W_{k-i} after I_k; the remaining W at the end
            (Qi et al. 2023, in the order of torch's ScheduleInterleavedZeroBubble)

    end(a) = max(end(previous on the rank), end(remote) + latency) + seconds(a)
    remote:  F(i,k) <- F(i-1,k);   B(i,k) <- B(i+1,k), I likewise;   W: none

Actions are sorted by level, a number larger than those of all predecessors, so that one numpy
step plays all ranks and all plans of a level:

    F(i,k)  i + k while k < w_i, and in gpipe; then 1f1b: i + 2k, zb-h1: 2i + 3k - p + 1
    B(i,k)  gpipe: m + 2p - 1 - i + k; 1f1b: 2p - 1 - i + 2k; zb-h1: 2p - 1 - i + 3k
    W(i,k)  1 after I(i,k+i); those at the end one by one after I(i,m-1)

Deleting the ranks before `first` with all their edges leaves a path system of its own, whose ends
are lower bounds (the forward seconds of the deleted stages come in front).
"""

import functools
from dataclasses import dataclass

import numpy as np

from planner.search.inner.problem import Chosen, Counts, Floats, Ints, Problem, ScheduleName, choose

FORWARD, BACKWARD, WEIGHT = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class StaticOrder:
    """Actions sorted by level; [A] each. previous, remote: A where there is none.

    hop: which latency the remote edge takes, p - 1 for none. begins: where each level begins, and
    A. last: the last action of each stage from the first on.
    """

    stages: int
    kind: Ints
    stage: Ints
    level: Ints
    previous: Ints
    remote: Ints
    hop: Ints
    begins: list[int]
    last: Ints


@functools.lru_cache(maxsize=64)
def static_order(
    schedule: ScheduleName, stages: int, microbatches: int, first: int = 0
) -> StaticOrder:
    """The static order of a schedule, ranks before `first` deleted."""
    i, k = np.indices((stages - first, microbatches), dtype=np.int64)
    i += first
    levels = _levels(schedule, stages, microbatches, i, k)
    kind, stage, microbatch = (
        np.concatenate([np.broadcast_to(each, i.shape).ravel() for each in column])
        for column in zip(*((kind, i, k) for kind in range(len(levels))), strict=True)
    )
    level = np.concatenate([each.ravel() for each in levels])
    order = np.lexsort((stage, level))
    kind, stage, microbatch, level = (x[order] for x in (kind, stage, microbatch, level))
    return _linked(stages, first, microbatches, kind, stage, microbatch, level)


def _levels(schedule: ScheduleName, p: int, m: int, i: Ints, k: Ints) -> list[Ints]:
    """Levels of forwards, backwards and weight gradients, the formulas of the file's head."""
    if schedule == "gpipe":
        return [i + k, m + 2 * p - 1 - i + k]
    warm = k < np.minimum(p - i, m)
    if schedule == "1f1b":
        return [np.where(warm, i + k, i + 2 * k), 2 * p - 1 - i + 2 * k]
    forward = np.where(warm, i + k, 2 * i + 3 * k - p + 1)
    start = 2 * p - 1 - i
    late = k + i - (m - 1)
    weight = np.where(late <= 0, start + 3 * (k + i) + 1, start + 3 * (m - 1) + 1 + late)
    return [forward, start + 3 * k, weight]


def _linked(
    stages: int, first: int, microbatches: int, kind: Ints, stage: Ints, k: Ints, level: Ints
) -> StaticOrder:
    """What each action waits for."""
    nothing = len(kind)
    row = np.full((3, stages + 1, microbatches), nothing)
    row[kind, stage, k] = np.arange(nothing)
    row[:, :first] = nothing
    source = np.where(kind == FORWARD, stage - 1, stage + 1)
    remote = np.where(kind == WEIGHT, nothing, row[kind, source, k])
    hop = np.where(remote == nothing, stages - 1, np.minimum(stage, source))
    mine = np.argsort(stage, kind="stable")
    previous = np.full(nothing, nothing)
    follows = stage[mine[1:]] == stage[mine[:-1]]
    previous[mine[1:][follows]] = mine[:-1][follows]
    ends = np.flatnonzero(np.append(np.diff(stage[mine]), 1))
    begins = [0, *(np.flatnonzero(np.diff(level)) + 1).tolist(), nothing]
    return StaticOrder(stages, kind, stage, level, previous, remote, hop, begins, mine[ends])


def ends(problem: Problem, chosen: Chosen, first: int = 0) -> Floats:
    """End of the last backward of each stage from `first` on, [K, p - first], for K plans."""
    order = static_order(problem.schedule, problem.stages, problem.microbatches, first)
    table = np.zeros((3, problem.stages, len(chosen.forward)))
    for kind, part in enumerate((chosen.forward, chosen.backward, chosen.weight)):
        table[kind, first:] = part.T
    result: Floats = action_ends(order, table, problem.hops)[order.last].T
    return result


def action_ends(order: StaticOrder, table: Floats, hops: Floats) -> Floats:
    """End of every action, [A + 1, K] (the last row is 0: waiting for nothing). table: seconds
    [3, p, K] of forwards, backwards and weight gradients; hops: [p - 1]."""
    # seconds are looked up level by level in a table that stays in the cache
    kinds, stages, plans = table.shape
    seconds, own = table.reshape(kinds * stages, plans), order.kind * stages + order.stage
    latency = np.append(hops, 0.0)[order.hop][:, None]
    delayed = bool(latency.any())
    end = np.empty((len(own) + 1, plans))
    end[-1] = 0.0
    for a, b in zip(order.begins[:-1], order.begins[1:], strict=True):
        ready = end.take(order.remote[a:b], axis=0)
        if delayed:
            ready += latency[a:b]
        np.maximum(ready, end.take(order.previous[a:b], axis=0), out=ready)
        np.add(ready, seconds.take(own[a:b], axis=0), out=end[a:b])
    return end


def steps(problem: Problem, counts: Ints) -> Floats:
    """Seconds of a step of each plan, exactly; infinite where a stage is not allowed. counts:
    [K, p]."""
    chosen = choose(problem, counts)
    end = (ends(problem, chosen) + chosen.reduce).max(axis=1)
    result: Floats = end + chosen.update.max(axis=1) + problem.fixed
    return result


def step_seconds(problem: Problem, counts: Counts) -> float:
    """The same for one plan."""
    return float(steps(problem, np.array([counts], dtype=np.int64))[0])
