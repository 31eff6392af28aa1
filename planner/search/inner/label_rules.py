"""Label rules: what a partial plan must remember, per schedule.

A label describes the stages i .. p-1 with their layers; numbers, all seconds, less is better.
extend adds stage i-1 in front, complete adds the least that the stages before can take
(planner.search.inner.completion): a lower bound of the step of every plan with this end. Both never
fall when a number of the label grows, so a label that another one of the same stages and layers
does not exceed anywhere is never needed.

With f, b, t = f + b and reduce of the stage, h its hop below, w = min(p - i, m); V is the largest
update so far, and the step is V + fixed + what follows.

GPipe, exact: Sf, Sb sums with hops; Mf, Mb maxima; G = max_j end_j + reduce_j after the forwards,

    G' = max(G, Sb' + (m-1) Mb' + reduce)        Sf + (m-1) Mf + G at the end

1F1B without latency: T5 of planner.search.inner.bounds, exactly. It needs the running maxima of f
and b from the first stage on, so this rule adds stages from the first to the last (on the mirrored
problem). X = (w-1) fm', Y = (w-1) bm' are the staircases that end at the new stage:

    fm' = max(fm, f), bm' = max(bm, b)           and F*, B*: the same, of stages with w = m only
    H'  = H + t, from reduce_0 on                head
    D'  = max(D, H + (m-1-w) t) + 2t             a pivot whose two staircases have not ended
    U'  = max(U + t, D' + X)                     ... whose second has not ended
    E'  = max(E + t, D' + Y)                     ... whose first has not ended
    A'  = max(A, U' + Y, E' + X)                 A at the end
    m <= p: A' also H' + X + (m-1) B*,  H' + Y + (m-1) F*,  H' + X + Y + (m-w) t

It leaves out reductions that end after the one of stage 0.

1F1B with latency: a bound, from the last stage to the first. fh, bh: the larger of f, b and the
least possible maximum of the stages before.

    S'  = S + 2h + t                             round trip from F(i,k) to B(i,k)
    St' = max(St + 2h + t, t + (w-1) fh)         from F(i,0) to B(i,0)
    En' = max(En + 2h + t, t + (w-1) b)          from F(i,m-1) to B(i,m-1); Eb with bh
    R'  = max(R + 2h + t, St' + steady + En')    from F(i,0) to B(i,m-1); Rb with Eb
          steady = max((m-1-w) t, q S' + r t), q, r = divmod(m-1-w, p-i)
    X'  = max(X + h + f, En' + reduce)           from F(i,m-1) to the last end_j + reduce_j, j >= i
    Q'  = max(Q + h + f, St' + steady + X', R' + reduce)         from F(i,0) to the same
    m <= w: R' = max(R + 2h + t, St' + (m-1) b, (m-1) f + En', t + (m-1)(fh + b)),
            Q' = max(Q + h + f, (m-1) f + X', R' + reduce)

    max(Q, Rb + reduce_0) at the end. It leaves out turns between inner intervals.

ZB-H1, a bound; b the input gradient, g the weight gradient, of which a rank postpones i:

    S as above; st = f + max((w-1) f, S + 2h)    when the first b starts
    Z'  = max(Z + 2h + f + b, st + (m-w) f + m b + (m-1-i)^+ g,
              st + (m-w-1) f + (m-w) b + (m-w-i)^+ g + f + S + 2h + b  if m > w)   end of b(i,m-1)
    Q'  = max(Q + h + f, Z' + min(i+1, m) g + reduce)            Q at the end

Every line is a path through the static order that starts at F(0,0), F(i,0) or F(i,m-1), so all
are valid. The replay of the plan shows what a bound leaves out.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from planner.search.inner.bounds import any_split
from planner.search.inner.completion import Tables, least_maximum, least_sum
from planner.search.inner.problem import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """One stage put in front of K labels: its index, the layer where it starts, its seconds."""

    stage: int
    start: Ints
    forward: Floats
    backward: Floats
    weight: Floats
    reduce: Floats
    update: Floats


class Rule(ABC):
    """Labels of one schedule, [K, width]; the last number is always the largest update."""

    width: int

    def __init__(self, tables: Tables):
        problem = tables.problem
        self.m, self.p, self.fixed = problem.microbatches, problem.stages, problem.fixed
        self.hops = np.append(problem.hops, 0.0)
        self.above = np.append(0.0, np.cumsum(problem.hops))
        parts = (tables.forward, tables.backward)
        self.sum_f, self.sum_b, self.sum_t = least_sum(tables, *parts, parts[0] + parts[1])
        self.top_f, self.top_b, self.top_t, self.top_v = least_maximum(
            tables, *parts, tables.total, tables.update
        )
        self.reduce, self.any_reduce = float(tables.reduce[0].min()), float(tables.reduce.min())
        last = tables.reduce[-1]
        self.most_reduce = float(last[np.isfinite(last)].max(initial=0.0))

    def start(self) -> Floats:
        """The label of no stage at all."""
        label = np.full((1, self.width), -np.inf)
        label[:, [0, -1]] = 0.0
        return label

    @abstractmethod
    def extend(self, labels: Floats, added: Added) -> Floats:
        """The labels with one stage more in front."""

    @abstractmethod
    def pipeline(self, labels: Floats, i: int, u: Ints) -> Floats:
        """Least max_j (end_j + reduce_j) when stages < i hold the layers [0, u), [K]."""

    def complete(self, labels: Floats, i: int, u: Ints) -> Floats:
        """Least step of all plans with these ends, [K]."""
        update = np.maximum(labels[:, -1], self.top_v[i, u])
        result: Floats = self.pipeline(labels, i, u) + update + self.fixed
        return result


class GPipe(Rule):
    """Sf, Mf, Sb, Mb, G, V."""

    width = 6

    def start(self) -> Floats:
        """Nothing yet."""
        return np.array([[0.0, 0.0, 0.0, 0.0, -np.inf, 0.0]])

    def extend(self, labels: Floats, added: Added) -> Floats:
        """One more stage of both flow shops."""
        sf, mf, sb, mb, g, v = labels.T
        h = self.hops[added.stage]
        sf, mf = sf + h + added.forward, np.maximum(mf, added.forward)
        sb, mb = sb + h + added.backward, np.maximum(mb, added.backward)
        g = np.maximum(g, sb + (self.m - 1) * mb + added.reduce)
        return np.stack([sf, mf, sb, mb, g, np.maximum(v, added.update)], axis=1)

    def pipeline(self, labels: Floats, i: int, u: Ints) -> Floats:
        """Exact when no stage is left (i = 0)."""
        sf, mf, sb, mb, g, _ = labels.T
        c, m = self.above[i], self.m
        mf, mb = np.maximum(mf, self.top_f[i, u]), np.maximum(mb, self.top_b[i, u])
        forward = sf + self.sum_f[i, u] + c + (m - 1) * mf
        whole = sf + sb + self.sum_t[i, u] + 2 * c + (m - 1) * (mf + mb) + self.reduce
        apart = sb + self.sum_b[i, u] + c + (m - 1) * mb + self.reduce
        result: Floats = np.maximum(forward + np.maximum(g, apart), whole)
        return sf + (m - 1) * mf + g if i == 0 else result


class Staircase(Rule):
    """fm, bm, F*, B*, H, D, U, E, A, V; on the mirrored problem, whose last stage is the first."""

    width = 10

    def start(self) -> Floats:
        """No pivot yet."""
        label = np.zeros((1, self.width))
        label[:, 5:9] = -np.inf
        return label

    def extend(self, labels: Floats, added: Added) -> Floats:
        """The recursion of the file's head."""
        fm, bm, fs, bs, head, d, u, e, a, v = labels.T
        m, w, t = self.m, min(added.stage + 1, self.m), added.forward + added.backward
        fm, bm = np.maximum(fm, added.forward), np.maximum(bm, added.backward)
        x, y = (w - 1) * fm, (w - 1) * bm
        before = head + (added.reduce if added.stage == self.p - 1 else 0.0)
        head = before + t
        if m > w:
            d = np.maximum(d, before + (m - 1 - w) * t)
        else:
            fs, bs = fm, bm
        d = d + 2 * t
        u, e = np.maximum(u + t, d + x), np.maximum(e + t, d + y)
        a = np.maximum(a, np.maximum(u + y, e + x))
        if m <= self.p:
            a = np.maximum(a, head + x + np.maximum((m - 1) * bs, y + (m - w) * t))
            a = np.maximum(a, head + y + (m - 1) * fs)
        v = np.maximum(v, added.update)
        return np.stack([fm, bm, fs, bs, head, d, u, e, a, v], axis=1)

    def pipeline(self, labels: Floats, i: int, u: Ints) -> Floats:
        """Staircases end at the next stage or at the last; exact when no stage is left."""
        fm, bm, fs, bs, head, d, up, down, a, _ = labels.T
        if i == 0:
            exact: Floats = a
            return exact
        m, w, rest, top = self.m, min(i, self.m), self.sum_t[i, u], self.top_t[i, u]
        x, y = (w - 1) * fm, (w - 1) * bm
        best = np.maximum(a, np.maximum(up + np.maximum(rest, y), down + np.maximum(rest, x)))
        best = np.maximum(best, d + np.maximum(2 * rest, x + y))
        late = np.maximum((m - w) * top, 0.0 if m > self.p else (m - 1) * np.maximum(fs, bs))
        best = np.maximum(best, head + np.maximum(rest + late, m * top))
        # no split beats the even one (T4); the head holds the first stage's reduction besides
        even = any_split(1.0, self.p, m, 0.0, 0.0) - 1
        result: Floats = np.maximum(best, head + rest + even * (head - self.most_reduce + rest))
        return result


class OneForwardOneBackward(Rule):
    """S, St, En, Eb, R, Rb, X, Q, V."""

    width = 9

    def extend(self, labels: Floats, added: Added) -> Floats:
        """The recursion of the file's head."""
        s, st, en, eb, r, rb, x, q, v = labels.T
        i, m, f, b = added.stage, self.m, added.forward, added.backward
        w, h, t = min(self.p - i, self.m), self.hops[added.stage], f + b
        fh = np.maximum(f, self.top_f[i, added.start])
        bh = np.maximum(b, self.top_b[i, added.start])
        s = s + 2 * h + t
        st = np.maximum(st + 2 * h + t, t + (w - 1) * fh)
        en = np.maximum(en + 2 * h + t, t + (w - 1) * b)
        eb = np.maximum(eb + 2 * h + t, t + (w - 1) * bh)
        x = np.maximum(x + h + f, en + added.reduce)
        if m > w:
            turns, rest = divmod(m - 1 - w, self.p - i)
            until = st + np.maximum((m - 1 - w) * t, turns * s + rest * t)
            r = np.maximum(r + 2 * h + t, until + en)
            rb = np.maximum(rb + 2 * h + t, until + eb)
        else:
            until = (m - 1) * f
            r = np.maximum(np.maximum(r + 2 * h + t, st + (m - 1) * b), until + en)
            r = np.maximum(r, t + (m - 1) * (fh + b))
            rb = np.maximum(np.maximum(rb + 2 * h + t, st + (m - 1) * bh), until + eb)
            rb = np.maximum(rb, t + (m - 1) * (fh + bh))
        q = np.maximum(np.maximum(q + h + f, until + x), r + added.reduce)
        return np.stack([s, st, en, eb, r, rb, x, q, np.maximum(v, added.update)], axis=1)

    def pipeline(self, labels: Floats, i: int, u: Ints) -> Floats:
        """Paths through the stages that are left, and no split beats the even one (T4)."""
        s, _, _, _, _, r, _, q, _ = labels.T
        m, p, c, total, top = self.m, self.p, self.above[i], self.sum_t[i, u], self.top_t[i, u]
        # a stage of those left turns at the end of the pipeline, twice
        slow = total + 2 * c + 2 * s + (m - p) * top if m > p else m * top
        work = total + s - 2 * (self.above[-1] - c)
        even = any_split(1.0, p, m, 0.0, 0.0) * work
        best = np.maximum(np.maximum(r + total + 2 * c, slow), even) + self.reduce
        result: Floats = np.maximum(best, q + self.sum_f[i, u] + c)
        return result


class ZeroBubble(Rule):
    """S, Z, Q, V."""

    width = 4

    def extend(self, labels: Floats, added: Added) -> Floats:
        """The recursion of the file's head."""
        s, z, q, v = labels.T
        i, m, f, b, g = added.stage, self.m, added.forward, added.backward, added.weight
        w, h = min(self.p - i, self.m), self.hops[added.stage]
        below = s + 2 * h
        first = f + np.maximum((w - 1) * f, below)
        z = np.maximum(z + 2 * h + f + b, first + (m - w) * f + m * b + max(m - 1 - i, 0) * g)
        if m > w:
            drain = (m - w) * (f + b) + max(m - w - i, 0) * g + below + b
            z = np.maximum(z, first + drain)
        q = np.maximum(q + h + f, z + min(i + 1, m) * g + added.reduce)
        return np.stack([below + f + b, z, q, np.maximum(v, added.update)], axis=1)

    def pipeline(self, labels: Floats, i: int, u: Ints) -> Floats:
        """Paths through the stages that are left."""
        s, z, q, _ = labels.T
        c, top = self.above[i], self.top_t[i, u]
        slow = self.sum_f[i, u] + c + s + max(self.m - self.p, 0) * top
        # a weight gradient may end after all of stage 0: any stage's reduction may follow
        slow = np.maximum(slow, self.m * top) + self.any_reduce
        climb = z + self.sum_t[i, u] + 2 * c + self.reduce
        result: Floats = np.maximum(np.maximum(slow, climb), q + self.sum_f[i, u] + c)
        return result


def rule_of(tables: Tables, mirrored: bool) -> Rule:
    """The rule of a problem's schedule; mirrored: the tables are those of the mirrored problem."""
    if tables.problem.schedule == "gpipe":
        return GPipe(tables)
    if tables.problem.schedule == "zb-h1":
        return ZeroBubble(tables)
    return Staircase(tables) if mirrored else OneForwardOneBackward(tables)
