"""Closed forms of pipeline time, exact where transfers are free.

p stages with forward f_i and backward b_i (t_i = f_i + b_i), m microbatches, one transfer cost
c per hop. Arrays have shape [N, p]: N candidates at once.

GPipe: two permutation flow shops, T = sum_i t_i + 2(p-1)c + (m-1)(max f + max b). Exact.

1F1B: with w_i = min(p-i, m), D(i,e) = sum_{i..e} t + 2(e-i)c and running maxima
fm_e = max_{j<=e} f_j, bm_e = max_{j<=e} b_j,

    start_i = max_{e>=i} D(i,e) + (w_e - 1) fm_e        the forward staircase, then the turn
    end_i   = max_{e>=i} D(i,e) + (w_e - 1) bm_e        its mirror image
    T = max_i  head_i + start_i + end_i + (m - 1 - w_i) t_i          for m > w_i

with head_i = sum_{j<i} t_j + 2c; for m <= w_i the warm-up and the drain overlap and

    T = max_i head_i + max_e { D + (w_e-1) fm_e + (m-1) b_i*,  D + (m-1) f_i* + (w_e-1) bm_e,
                               D + (m - w_e)^+ t_e + (min(w_e,m)-1)(fm_e + bm_e) },
    f_i* = fm_i, b_i* = bm_i.

With c = 0 it equals the replay (a property test). A message that passes beside compute makes a
latency c > 0: then it counts each hop once per turn and stays slightly low, so the plans that
matter are replayed. A receive that holds its rank makes the actions that wait for it longer,

    f_i + c [i > 0],   b_i + c [i < p-1],   and no latency,

so the forms stay exact.

Split backwards (zb-h1, interleaved-zb, zbv, dualpipev), w_i of b_i the gradients of weights: these
fill a part of the bubble. An estimate, with the mean of the bubble and the slowest t:

    T = m t + (p-1) (f + b - 2w) / v

It is not exact for equal stages either: with f = 1, b = 1.8, w = 0.5 zbv at p = 4 has a bubble of
2.4 (here 2.7), dualpipev at p = 8 one of 6.85 (here 6.3). Equal stages without a split and chunks
give (m + p - 1)(f + b), the textbook bubble (p-1)/(m+p-1).
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.schedule import alive
from planner.schedule.orders import SPLIT, Orders, orders
from planner.spec.documents import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def pipeline_seconds(
    schedule: str, forward: Floats, backward: Floats, microbatches: Ints, hop: Floats
) -> Floats:
    """Seconds from the first forward to the last backward, shape [N].

    forward, backward: [N, p] seconds per microbatch; microbatches: [N]; hop: [N] seconds of a
    message, beside compute.
    Raises InputError for a schedule without a closed form.
    """
    if schedule == "gpipe":
        return _gpipe(forward, backward, microbatches, hop)
    if schedule != "1f1b":
        raise InputError(f"schedule {schedule!r} is not costed yet; plan with gpipe or 1f1b")
    return _one_f_one_b(forward, backward, microbatches, hop)


def holding_seconds(
    schedule: str, forward: Floats, backward: Floats, microbatches: Ints, hop: Floats
) -> Floats:
    """The same where a receive holds its rank; exact."""
    forward, backward = forward.copy(), backward.copy()
    forward[:, 1:] += hop[:, None]
    backward[:, :-1] += hop[:, None]
    return pipeline_seconds(schedule, forward, backward, microbatches, np.zeros_like(hop))


def order_seconds(
    schedule: str,
    forward: Floats,
    backward: Floats,
    weight: Floats,
    microbatches: Ints,
    hop: Floats,
    chunks: int,
    hides_hops: bool,
) -> Floats:
    """Seconds from the first forward to the last backward of any schedule, shape [N].

    weight: the gradients of weights, a part of backward, [N, p]; of interleaved_seconds the rest.
    """
    if schedule not in SPLIT:
        name = {"interleaved": "1f1b", "looped-bfs": "gpipe"}.get(schedule, schedule)
        shape = microbatches, hop, chunks, hides_hops
        return interleaved_seconds(name, forward, backward, *shape)
    held = 0.0 if hides_hops and chunks > 1 else chunks * hop[:, None]
    forward, backward = forward.copy(), backward.copy()
    forward[:, 1:] += held
    backward[:, :-1] += held
    total, p = forward + backward, forward.shape[1]
    bubble = np.maximum((total - 2 * weight).mean(axis=1), 0.0) * (p - 1) / chunks
    result: Floats = microbatches * total.max(axis=1) + bubble
    return result


def interleaved_seconds(
    schedule: str,
    forward: Floats,
    backward: Floats,
    microbatches: Ints,
    hop: Floats,
    chunks: int,
    hides_hops: bool = False,
) -> Floats:
    """The same for stages cut in `chunks` (vpp): the bubble shrinks, the transfers multiply.

    One chunk: exact, see holding_seconds; there is nothing for hops to hide behind.

    T = m * max t + (T_1 - m * max t) / v + H + 2m(v-1)c, with T_1 without chunks and transfers and
    H what transfers add to it. Exact for equal stages, free transfers and m a multiple of p
    (Narayanan et al. 2021). A receive holds its rank for a hop, and a rank receives 2m(v-1)
    messages more; with hides_hops these pass beside the compute of other chunks.
    """
    if chunks == 1:
        return holding_seconds(schedule, forward, backward, microbatches, hop)
    return Unchunked(schedule, forward, backward, microbatches, hop).cut(chunks, hides_hops)


class Unchunked:
    """What interleaved_seconds needs to know of stages before they are cut in chunks, once for all
    numbers of chunks. plain, free: with and without transfers; busy: the slowest stage, [N]."""

    def __init__(
        self, schedule: str, forward: Floats, backward: Floats, microbatches: Ints, hop: Floats
    ):
        self.microbatches, self.hop, self.stages = microbatches, hop, forward.shape[1]
        given = schedule, forward, backward, microbatches
        self.free = pipeline_seconds(*given, np.zeros_like(hop))
        self.plain = pipeline_seconds(*given, hop) if hop.any() else self.free
        self.busy = microbatches * (forward + backward).max(axis=1)

    def cut(self, chunks: int, hides_hops: bool) -> Floats:
        """Seconds of the pipeline in so many chunks, [N]."""
        shown = self.stages > 1 and not hides_hops
        more = 2 * self.microbatches * (chunks - 1) * self.hop if shown else 0.0
        sent = self.plain - self.free + more
        result: Floats = self.busy + (self.free - self.busy) / chunks + sent
        return result


def _gpipe(forward: Floats, backward: Floats, m: Ints, hop: Floats) -> Floats:
    p = forward.shape[1]
    through = (forward + backward).sum(axis=1) + 2 * (p - 1) * hop
    slowest = forward.max(axis=1) + backward.max(axis=1)
    result: Floats = through + (m - 1) * slowest
    return result


def _one_f_one_b(forward: Floats, backward: Floats, m: Ints, hop: Floats) -> Floats:
    """The staircase of planner.search.inner.bounds at once: with P_j = sum_{k<=j} t_k + 2 j hop
    a way down to stage j and back takes P_j - P_i + t_i, so what is sought over j >= i is a maximum
    from the right of sums that do not know i."""
    p, later = forward.shape[1], (m - 1)[:, None]
    total = forward + backward
    fm, bm = np.maximum.accumulate(forward, axis=1), np.maximum.accumulate(backward, axis=1)
    down = np.cumsum(total, axis=1) + 2 * np.arange(p) * hop[:, None]
    before = down - total
    w = np.minimum(p - np.arange(p)[None, :], m[:, None])
    rise = _from_right(down + (w - 1) * fm) - before
    fall = _from_right(down + (w - 1) * bm) - before
    best: Floats = before + rise + fall + (later - w) * total
    few = m[:, None] <= w
    if few.any():
        # warm-up and drain of stage i share microbatches
        rest = np.maximum(m[:, None] - w, 0) * total + (w - 1) * (fm + bm)
        third = _from_right(down + rest) - before
        short = np.maximum(np.maximum(rise + later * bm, fall + later * fm), third)
        best = np.where(few, before + short, best)
    result: Floats = best.max(axis=1)
    return result


def _from_right(values: Floats) -> Floats:
    """The largest of each value and those to its right, [N, p]."""
    result: Floats = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
    return result


def in_flight(schedule: str, stages: int, microbatches: Ints, chunks: int = 1) -> Floats:
    """Microbatches held by each rank of a pipeline at its fullest, shape [N, stages].

    1f1b with v chunks is the interleaved one: rank i has run 2(p-1-i) + (v-1)p + 1 forwards of
    1/v stage when its first backward starts (Narayanan et al. 2021): (p-1)/(pv) more than without
    chunks on rank 0. The other schedules are counted, action by action.
    """
    m, schedule = microbatches[:, None], _by_formula(schedule, stages, microbatches)
    if schedule == "gpipe":
        return np.repeat(m, stages, axis=1).astype(np.float64)
    if schedule != "1f1b":
        return _counted(alive.in_flight, schedule, stages, microbatches, chunks) / chunks
    below = stages - 1 - np.arange(stages)[None, :]
    if chunks == 1:
        return np.minimum(below + 1, m).astype(np.float64)
    held: Floats = np.minimum(2 * below + (chunks - 1) * stages + 1, chunks * m) / chunks
    return held


def ends_in_flight(schedule: str, stages: int, microbatches: Ints, chunks: int = 1) -> Floats:
    """Microbatches whose embedding (first column) and head (last column) are held, [N, stages].

    With chunks the first of them runs up to 2p microbatches ahead of its backward; the
    backward of the last one follows its forward at once. In a V placement the head lies on the
    first rank; the last column counts it all the same.
    """
    schedule = _by_formula(schedule, stages, microbatches)
    if schedule == "gpipe" or (schedule == "1f1b" and chunks == 1):
        return in_flight(schedule, stages, microbatches)
    ahead = np.ones((len(microbatches), stages))
    if schedule == "1f1b":
        ahead[:, 0] = np.minimum(2 * stages, microbatches)
        return ahead
    held = _counted(alive.stages_in_flight, schedule, stages, microbatches, chunks)
    ahead[:, -1] = held[:, -1]
    ahead[:, 0] = held[:, 0] if stages > 1 else held.max(axis=1)
    return ahead


def halfway(schedule: str, stages: int, microbatches: Ints, chunks: int = 1) -> Floats:
    """The most microbatches of each rank between the two halves of their backward, [N, stages];
    none where it is not split."""
    if schedule not in SPLIT:
        return np.zeros((len(microbatches), stages))
    return _counted(alive.halfway, schedule, stages, microbatches, chunks) / chunks


def _by_formula(schedule: str, stages: int, microbatches: Ints) -> str:
    """The interleaved schedule need not be counted where its rounds are whole."""
    whole = schedule == "interleaved" and not (microbatches % stages).any()
    return "1f1b" if whole else schedule


def _counted(
    count: Callable[[Orders], Ints], schedule: str, stages: int, microbatches: Ints, chunks: int
) -> Floats:
    """Count once per number of microbatches. Raises ScheduleError where there is no schedule."""
    values, rows = np.unique(microbatches, return_inverse=True)
    found = [_count(count, schedule, stages, int(m), chunks) for m in values]
    result: Floats = np.array(found, dtype=np.float64)[rows]
    return result


@lru_cache(maxsize=4096)
def _count(
    count: Callable[[Orders], Ints], schedule: str, stages: int, m: int, chunks: int
) -> tuple[int, ...]:
    return tuple(count(orders(schedule, stages, m, chunks)).tolist())
