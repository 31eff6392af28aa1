"""Bounds: what a pipeline needs at least, for one plan in closed form.

Stages i = 0 .. p-1 with forward f_i, backward b_i, t_i = f_i + b_i, m microbatches, latency c_i
between i and i+1 each way (it occupies neither), w_i = min(p - i, m). Makespan = end of the last
backward on stage 0 = the longest path through the static order. Every bound is the length of a
path (or a convex combination of paths), so none can exceed the replay. In T2, T3, T5:

    head_i = sum_{j<i} t_j + 2 c_j      F(0,0) down to stage i, and B(i,m-1) up to stage 0
    S_i    = sum_{j>i} t_j + 2 c_{j-1}  the round trip below stage i

All hold for 1F1B; the docstrings say what else they hold for. `sum t + (m-1) max t`, often
quoted, is no bound (up to 27 % above the replay).
"""

from dataclasses import dataclass

import numpy as np

from planner.search.inner.problem import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """forward, backward: [p] seconds per microbatch; latency: [p - 1] seconds."""

    forward: Floats
    backward: Floats
    latency: Floats
    microbatches: int

    @property
    def total(self) -> Floats:
        """t_i, [p]."""
        return self.forward + self.backward

    @property
    def trips(self) -> Floats:
        """Prefix sums of the round trips: trips[e] - trips[i] = 2 * hops from i to e, [p]."""
        return np.append(0.0, 2 * np.cumsum(self.latency))

    @property
    def head(self) -> Floats:
        """head_i, [p]."""
        return np.cumsum(self.total) - self.total + self.trips

    @property
    def below(self) -> Floats:
        """S_i, [p]."""
        rest: Floats = self.head[-1] + self.total[-1] - self.head - self.total
        return rest

    @property
    def held(self) -> Floats:
        """w_i, [p]."""
        stages = len(self.forward)
        return np.minimum(stages - np.arange(stages), self.microbatches).astype(np.float64)


def two_sided(line: Pipeline, cycles: bool = False) -> float:
    """T2, and T3 with `cycles`.

    T2: for m > w_i the windows from the first F to the first B and from the last F to the last B
    of stage i do not overlap. The first holds w_i forwards and a backward, or F, the round trip
    and B; the second is its mirror image (reversing time swaps f and b):

        head_i + max(w f + b, t + S) + max(f + w b, t + S) + (m-1-w) t

    For m <= w_i: head_i + max(m t, f + S + m b, m f + S + b).

    T3: between the windows the path may turn through the stages below: from i down to e and up
    again takes C = sum_{i..e} t + hops and advances e - i + 1 microbatches. (m-1-w) = q(e-i+1) + r
    gives q C + r t_i in place of (m-1-w) t_i; with latency it is more.
    """
    m, w, t, s = line.microbatches, line.held, line.total, line.below
    up = np.maximum(w * line.forward + line.backward, t + s)
    down = np.maximum(line.forward + w * line.backward, t + s)
    middle = _steady(line, cycles)
    short = np.maximum(line.forward + s + m * line.backward, m * line.forward + s + line.backward)
    short = np.maximum(short, m * t)
    return float((line.head + np.where(m > w, up + down + middle, short)).max())


def cycles(line: Pipeline) -> float:
    """T3: two_sided with turns through the stages below (see there)."""
    return two_sided(line, cycles=True)


def _steady(line: Pipeline, turns: bool) -> Floats:
    """Seconds of the m-1-w microbatches between the windows of each stage, [p]."""
    stages, left = len(line.total), line.microbatches - 1 - line.held
    best = left * line.total
    for e in range(stages if turns else 0):
        i = np.arange(e + 1)
        q, r = np.divmod(np.maximum(left[i], 0), e - i + 1)
        through = line.total[e] + line.head[e] - line.head[i]
        best[i] = np.maximum(best[i], q * through + r * line.total[i])
    return best


def any_split(
    total: float, stages: int, microbatches: int, latency: float, slowest: float
) -> float:
    """T4: no split of `total` seconds over p stages ends before, 1F1B or GPipe.

    total = sum t_i; latency = sum c_i; slowest: a lower bound of max t_i (0 if unknown).

    For m > p, with tau = slowest: (m+p-1)/p * total, total + (m-(p+1)/2) tau, m tau. The first by
    duality: the paths head_i + 2 S_i + (m-w_i+1) t_i, weighted by alpha_i > 0 with
    alpha_j (m-p+j) + 1 + sum_{i<j} alpha_i the same for all j, have one coefficient for all t_j,
    (m+p-1)/p. It is false for m <= p; there total + 2 sum c, m total / p and m tau remain.
    The second is the slow stage at the worst place, the first.
    """
    p, m = stages, microbatches
    if m <= p:
        return max(total + 2 * latency, m * total / p, m * slowest)
    return max((m + p - 1) / p * total, total + (m - (p + 1) / 2) * slowest, m * slowest)


def staircase(line: Pipeline) -> float:
    """T5: the replay of 1F1B itself where latency is 0; else a bound above T3.

    With fm_e = max_{j<=e} f_j, bm_e = max_{j<=e} b_j, D(i,e) = sum_{i..e} t + 2 hops:

        st_i = max_{e>=i} D(i,e) + (w_e - 1) fm_e     up to the first turn, back to stage i
        en_i = max_{e>=i} D(i,e) + (w_e - 1) bm_e     its mirror image
        max_i head_i + st_i + en_i + steady_i         for m > w_i, steady as in T3
        m <= w_i: head_i + max_e of  D + (w_e-1) fm_e + (m-1) b_i,   D + (m-1) f_i + (w_e-1) bm_e,
                                     D + (m-w_e) t_e + (w_e-1)(fm_e + bm_e)

    A critical path is a staircase of forwards until it first turns at some e, which needs forward
    w_e - 1, and the best one takes everything extra on the slowest stage so far; then turns to and
    fro, which without latency collapse to staying on one stage; then the mirror image. Validity
    is proved by that path; exactness is not proved (60,000 random cases and this file's tests).
    """
    m, w, t, head = line.microbatches, line.held, line.total, line.head
    up = (w - 1) * np.maximum.accumulate(line.forward)
    down = (w - 1) * np.maximum.accumulate(line.backward)
    steady, best = _steady(line, True), 0.0
    for i in range(len(t)):
        d = t[i:] + head[i:] - head[i]
        if m > w[i]:
            inner = (d + up[i:]).max() + (d + down[i:]).max() + steady[i]
        else:
            rest = (m - w[i:]) * t[i:] + up[i:] + down[i:]
            ways = (up[i:] + (m - 1) * line.backward[i], (m - 1) * line.forward[i] + down[i:], rest)
            inner = max((d + way).max() for way in ways)
        best = max(best, float(head[i] + inner))
    return best


def gpipe(line: Pipeline) -> float:
    """GPipe, exactly: sum t + 2 sum c + (m-1)(max f + max b).

    Two permutation flow shops one after the other; the backward one never waits for a forward.
    """
    slowest = line.forward.max() + line.backward.max()
    return float(line.head[-1] + line.total[-1] + (line.microbatches - 1) * slowest)
