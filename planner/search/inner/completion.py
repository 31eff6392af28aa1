"""Completion: what the stages before i need at least, when they hold the layers [0, u).

For any seconds x_j(n) of a stage, over all cuts of the layers [0, u) into stages 0 .. i-1:

    least sum      sum[i][u] = min over n of  sum[i-1][u-n] + x_{i-1}(n)
    least maximum  top[i][u] = min over n of  max(top[i-1][u-n], x_{i-1}(n))

Both are exact (min, +) and (min, max) recursions, and the second's optimal cut is a good first
plan. They are known where the other stages can hold the other layers, and infinite elsewhere:
O(p B N) each with bands of B <= L layers. With an upper bound UB on the step the tables are
narrowed first: a stage with m t_i(n) + reduce_i(n) + update_i(n) + fixed >= UB is in no better
plan.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planner.search.inner.problem import RELATIVE, Counts, Floats, Ints, Problem


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """The tables of a problem by the layer where a stage ends: [i, v, n] holds [v - n, v).

    [p, U, N + 1], infinite where not allowed. total: seconds of a microbatch. before: [L + 1,
    N + 1], v - n, or L + 1 where negative.
    """

    problem: Problem
    forward: Floats
    backward: Floats
    weight: Floats
    total: Floats
    reduce: Floats
    update: Floats
    before: Ints

    @property
    def most(self) -> int:
        """The most layers of one stage."""
        return int(self.total.shape[2]) - 1

    @property
    def enough(self) -> bool:
        """Whether the stages can hold all layers, wherever each of them starts."""
        some = np.asarray(np.isfinite(self.total).any(axis=1))
        held = np.where(some, np.arange(self.most + 1), 0).max(axis=1)
        return bool(some.any(axis=1).all()) and int(held.sum()) >= self.problem.layers


def tables_below(problem: Problem, upper: float) -> Tables:
    """The tables with all stages left out that cannot be in a plan below `upper`."""
    before = np.arange(problem.layers + 1)[:, None] - np.arange(problem.most + 1)[None, :]
    before = np.where(before < 0, problem.layers + 1, before)
    names = ("forward", "backward", "weights", "reduce", "update")
    parts = [_by_end(problem, getattr(problem, name), before) for name in names]
    total = parts[0] + parts[1] + parts[2]
    least = problem.microbatches * total + parts[3] + parts[4] + problem.fixed
    allowed = least < upper * (1 - RELATIVE)
    most = int(np.flatnonzero(allowed.any(axis=(0, 1))).max(initial=0)) + 1
    kept = [np.where(allowed, part, np.inf)[:, :, :most] for part in parts]
    forward, backward, weight, reduce, update = kept
    total = forward + backward + weight
    return Tables(problem, forward, backward, weight, total, reduce, update, before[:, :most])


def _by_end(problem: Problem, table: Floats, before: Ints) -> Floats:
    table = table[:, :, : problem.most + 1]
    if table.shape[1] == 1:
        return table
    padded = np.concatenate([table, np.full_like(table[:, :1], np.inf)], axis=1)
    return padded[:, before, np.arange(problem.most + 1)[None, :]]


def least_sum(tables: Tables, *seconds: Floats) -> Floats:
    """sum[i][u] for each table, [tables, p + 1, L + 1]."""
    return _recursion(tables, np.stack(seconds), np.add)


def least_maximum(tables: Tables, *seconds: Floats) -> Floats:
    """top[i][u] for each table, [tables, p + 1, L + 1]."""
    return _recursion(tables, np.stack(seconds), np.maximum)


def _recursion(tables: Tables, seconds: Floats, join: np.ufunc) -> Floats:
    kinds, stages, layers = len(seconds), tables.problem.stages, tables.problem.layers
    # layers before the first are infinite; all [v - n] are a view of one row, n by n
    left, most = tables.most, seconds.shape[3]
    found = np.full((kinds, stages + 1, left + layers + 1), np.inf)
    found[:, 0, left] = 0.0
    # numpy takes the least over n of rows of layers much faster than over neighbours
    each = np.ascontiguousarray(seconds.swapaxes(2, 3))
    for i in range(stages):
        # the stages behind hold at most so many layers, and so do those before
        low = max(0, layers - (stages - 1 - i) * tables.most)
        high = min(layers, (i + 1) * tables.most) + 1
        if low >= high:
            break
        windows = sliding_window_view(found[:, i, low + left - most + 1 : high + left], most, 1)
        own = each[:, i, :, low:high] if seconds.shape[2] > 1 else each[:, i]
        ways = join(windows[:, :, ::-1].swapaxes(1, 2), own)
        found[:, i + 1, low + left : high + left] = ways.min(axis=1)
    return found[:, :, left:]


def balanced(tables: Tables) -> Counts | None:
    """The plan of least maximum t, of these one of least sum; None where no plan is allowed."""
    (top,) = least_maximum(tables, tables.total)
    if not np.isfinite(top[-1, -1]):
        return None
    total = np.where(tables.total <= top[-1, -1] * (1 + RELATIVE), tables.total, np.inf)
    (least,) = least_sum(tables, total)
    padded = np.append(least, np.full((len(least), 1), np.inf), axis=1)
    counts, v = [], tables.problem.layers
    for i in reversed(range(tables.problem.stages)):
        ways = padded[i, tables.before[v]] + total[i, v if total.shape[1] > 1 else 0]
        counts.append(int(ways.argmin()))
        v -= counts[-1]
    return tuple(reversed(counts))
