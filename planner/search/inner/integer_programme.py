"""Integer programme: the inner problem as a mixed integer linear programme, solved by HiGHS.

An independent second opinion on planner.search.inner.labels: it shares the tables
(planner.search.inner.recompute_tables) and nothing else, and it decides the layers that recompute
itself, under the memory of every rank. The only file that imports pulp.

Variables (seconds in units of the mean stage, bytes in units of the limit)

    y[i,u,n,r]      binary   stage i starts at layer u and holds n layers, r of them recompute
    z[k]            binary   every stage recomputes min(k, n) layers (rule same; all: k in {0, L})
    F_i, B_i, R_i   seconds of a forward, a backward, of the reduction of stage i
    V, E, T         the longest update, the end of the last reduction, the step

Minimise T = E + V + fixed, subject to

    one_choice      sum_{u,n,r} y[i,u,n,r] = 1
    every_layer     sum n y = L                                           (layers of one kind)
    contiguous      sum_{v+n=u} y[i,v,n,r] = sum y[i+1,u,n,r] for every u; 0 at the first, L at
                    the last                                              (several kinds)
    within_memory   sum bytes[i,u,n,r] y[i,u,n,r] <= limit
    same_layers     sum_k z_k = 1;  sum_{u,n} y[i,u,n,min(k,n)] >= z_k
    stage_seconds   F_i = sum forward y;  B_i = sum backward y;  R_i = sum reduce y
    longest_update  V >= sum update y

and what makes E the end of the static order, in one of two forms, both exact:

    events          e_a >= e_{a'} + latency + d_a for both predecessors a' of every action a, with
                    d_a the F_i or B_i of its stage; E >= e_a + R_i for the last a of each stage.
                    2pm variables, 4pm rows of three numbers.
    staircase       gpipe_rows, exact (planner.search.inner.bounds.gpipe), p rows; staircase_rows of
                    1f1b, exact but for latency and reductions that end after the first stage's
                    (planner.search.inner.bounds.staircase, T5): O(p^2) rows whatever m is. The plan
                    is then replayed, and where a path is longer than E it is added by path_row,

                        E >= sum_i alpha_i F_i + beta_i B_i + latency + R_j

                    (planner.search.inner.critical_path), and the programme solved again. Paths are
                    finitely many, so this ends, with E the replay.

A coefficient of within_memory that exceeds the limit is lifted to twice the limit, and one that
does not is lowered to FULL of it: the same integer points, since a rank holds one choice, and no
rounding decides whether a stage fits.

HiGHS is given one thread, a seed, gap 0 and tolerances of 1e-9, so the answer is the same on every
run unless `time_limit_seconds` (wall time, as HiGHS counts) cuts it. Steps are exact to TOLERANCE.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pulp

from planner.search.inner.critical_path import critical_path
from planner.search.inner.problem import Counts, Floats
from planner.search.inner.recompute_tables import RecomputeTables, Rule
from planner.search.inner.static_order import FORWARD, static_order, step_seconds

TOLERANCE = 1e-6
"""Relative. Assumed: HiGHS' rows hold to 1e-9 of the mean stage, integers to 1e-6."""
FULL = 1 - 1e-6
"""Of the limit, for what fills it. Measured: HiGHS' presolve called a stage that fills it to 1e-9
infeasible; a thousand times its tolerance is clear of that."""
SOLVER_OPTIONS: dict[str, Any] = {
    "random_seed": 0,
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    "presolve_rule_off": 1 << 16,
}
"""Any seed will do if it stays the same; the tolerances are the tightest that HiGHS was given.
Measured: of 29,000 drawn programmes HiGHS 1.16 solved all, but of one that was found later it
proved 70 to be the least, where a plan of 59 fits (tests/search/inner/test_integer_programme.py).
Leaving out any one of six reductions of its presolve cures it; the last and newest of them,
enumeration, is left out. Without any presolve large programmes take several times as long."""
GAVE_UP = "kSolveError"
"""HiGHS' status where what its presolve made of a plan breaks a row by more than the tolerance (one
drawn programme, tests as above); such a programme is solved again without presolve."""

Form = Literal["staircase", "events"]
Status = Literal["optimal", "infeasible", "stopped"]
Index = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Solution:
    """What came of it. stopped: the time was over; the plan, if any, is the best so far.

    step_seconds: replay of the plan. bound_seconds: no plan is faster. rows, columns: of the
    programme when it was last solved; rounds: how often it was.
    """

    status: Status
    step_seconds: float
    bound_seconds: float
    counts: Counts | None
    recomputed: Counts | None
    rows: int
    columns: int
    rounds: int


def solve(
    tables: RecomputeTables,
    rule: Rule = "any",
    upper: float = np.inf,
    form: Form = "staircase",
    time_limit_seconds: float | None = None,
) -> Solution:
    """The plan with the least step of at most `upper` seconds; infeasible: there is none."""
    begun = time.perf_counter()
    made = Programme(tables, rule, upper, form)
    best, rounds = np.inf, 0
    plan: tuple[Counts | None, Counts | None] = None, None
    while True:
        left = None
        if time_limit_seconds is not None:
            left = max(time_limit_seconds - (time.perf_counter() - begun), 1e-3)
        status, bound, found = made.solve(left)
        rounds += 1
        size = len(made.rows), made.problem.numVariables(), rounds
        if found is not None:
            step = step_seconds(tables.chosen(*found), found[0])
            if step < best:
                best, plan = step, found
        if status == "infeasible":
            return Solution(status, np.inf, np.inf, None, None, *size)
        if status != "optimal" or best <= bound * (1 + TOLERANCE) or not made.add_path():
            return Solution(status, best, min(bound, best), *plan, *size)


class Programme:
    """The programme of one choice. rows: names of its constraints."""

    def __init__(self, tables: RecomputeTables, rule: Rule, upper: float, form: Form):
        self.tables = tables
        self.p, self.m = tables.stages, tables.microbatches
        exists = np.isfinite(tables.forward + tables.backward + tables.reduce + tables.update)
        mean = (tables.forward + tables.backward)[exists]
        self.unit = float(mean.mean()) if mean.size and mean.mean() > 0 else 1.0
        self.problem = pulp.LpProblem("inner", pulp.LpMinimize)
        self.rows: list[str] = []
        index = [(i, u, n, r) for i, u, n, r in np.argwhere(exists).tolist()]
        self.choice: dict[Index, Any] = {
            each: self.problem.add_variable("y_" + "_".join(map(str, each)), 0, 1, "Binary")
            for each in index
        }
        self.own = [[each for each in index if each[0] == i] for i in range(self.p)]
        names = ("F", "B", "R")
        self.forward, self.backward, self.reduce = (
            [self._seconds(f"{name}_{i}") for i in range(self.p)] for name in names
        )
        self.update, self.end = self._seconds("V"), self._seconds("E")
        self.hops = np.broadcast_to(np.asarray(tables.latency, float), (self.p - 1,)) / self.unit
        step = self.end + self.update + tables.fixed / self.unit
        self.problem.setObjective(step)
        if np.isfinite(upper):
            self._add(step <= upper / self.unit, "below_upper")
        self._choices(rule)
        for i in range(self.p):
            self.stage_seconds(i)
            self.longest_update(i)
        self._ends(form)

    def _choices(self, rule: Rule) -> None:
        for i in range(self.p):
            self.one_choice(i)
            self.within_memory(i)
        if self.tables.forward.shape[1] == 1:
            self.every_layer()
        else:
            self.contiguous()
        if rule != "any" and self.tables.forward.shape[3] > 1:
            self.same_layers(rule)

    def _ends(self, form: Form) -> None:
        if form == "events":
            self.events()
        elif self.tables.schedule == "gpipe":
            self.gpipe_rows()
        else:
            self.staircase_rows()

    def _seconds(self, name: str) -> Any:
        return self.problem.add_variable(name, 0)

    def _add(self, constraint: Any, name: str) -> None:
        self.problem.addConstraint(constraint, name)
        self.rows.append(name)

    def _sum(self, table: Floats, i: int, unit: float = 1.0) -> Any:
        """Of the chosen stage i, what the table says."""
        return pulp.LpAffineExpression(
            [(self.choice[each], float(table[each]) / unit) for each in self.own[i]]
        )

    def one_choice(self, i: int) -> None:
        """Stage i is one of the stages that exist."""
        self._add(pulp.lpSum(self.choice[each] for each in self.own[i]) == 1, f"one_choice_{i}")

    def every_layer(self) -> None:
        """The stages hold all layers, where these are of one kind."""
        held = pulp.lpSum(n * y for (_, _, n, _), y in self.choice.items())
        self._add(held == self.tables.layers, "every_layer")

    def contiguous(self) -> None:
        """Each stage starts where the one before ends."""
        layers = self.tables.layers
        for i in range(self.p + 1):
            for u in range(layers + 1):
                inside: list[Any] = [1.0] if i == 0 and u == 0 else []
                outside: list[Any] = [1.0] if i == self.p and u == layers else []
                if i > 0:
                    inside = [self.choice[e] for e in self.own[i - 1] if e[1] + e[2] == u]
                if i < self.p:
                    outside = [self.choice[e] for e in self.own[i] if e[1] == u]
                if inside or outside:
                    flow = pulp.lpSum(inside) - pulp.lpSum(outside)
                    self._add(flow == 0, f"contiguous_{i}_{u}")

    def within_memory(self, i: int) -> None:
        """The peak of rank i, in units of the limit."""
        share = self.tables.peak_bytes / self.tables.limit_bytes
        over = self.tables.peak_bytes > self.tables.limit_bytes
        clear = np.where(over, np.maximum(share, 2.0), np.minimum(share, FULL))
        self._add(self._sum(clear, i) <= 1, f"memory_{i}")

    def same_layers(self, rule: Rule) -> None:
        """The same number of layers recomputes on every stage, as far as it has so many."""
        most = self.tables.forward.shape[3] - 1
        numbers = range(most + 1) if rule == "same" else (0, most)
        z = {k: self.problem.add_variable(f"z_{k}", 0, 1, "Binary") for k in numbers}
        self._add(pulp.lpSum(z.values()) == 1, "one_number")
        for k in numbers:
            for i in range(self.p):
                mine = [self.choice[e] for e in self.own[i] if e[3] == min(k, e[2])]
                self._add(pulp.lpSum(mine) >= z[k], f"same_layers_{k}_{i}")

    def stage_seconds(self, i: int) -> None:
        """F_i, B_i, R_i are those of the choice."""
        for name, variables in (
            ("forward", self.forward),
            ("backward", self.backward),
            ("reduce", self.reduce),
        ):
            chosen = self._sum(getattr(self.tables, name), i, self.unit)
            self._add(variables[i] - chosen == 0, f"{name}_{i}")

    def longest_update(self, i: int) -> None:
        """The updates start together, and the longest ends the step."""
        self._add(self.update >= self._sum(self.tables.update, i, self.unit), f"update_{i}")

    def events(self) -> None:
        """Every action ends its seconds after both of its predecessors."""
        order = static_order(self.tables.schedule, self.p, self.m)
        count = len(order.kind)
        end = [self._seconds(f"e_{a}") for a in range(count)]
        wait = np.append(self.hops, 0.0)[order.hop]
        for a in range(count):
            kinds = self.forward if order.kind[a] == FORWARD else self.backward
            own = end[a] - kinds[order.stage[a]]
            self._add(own >= 0, f"alone_{a}")
            for name, before, lag in (
                ("previous", int(order.previous[a]), 0.0),
                ("remote", int(order.remote[a]), float(wait[a])),
            ):
                if before < count:
                    self._add(own - end[before] >= lag, f"{name}_{a}")
        for i, a in enumerate(order.last.tolist()):
            self._add(self.end >= end[a] + self.reduce[i], f"end_{i}")

    def gpipe_rows(self) -> None:
        """Two flow shops: the forwards of all stages, then the backwards of stages i and behind."""
        p, m, hops = self.p, self.m, self.hops
        top_f, top_b = self._maxima("MF", self.forward), self._maxima("MB", self.backward[::-1])
        forwards = pulp.lpSum(self.forward) + (m - 1) * top_f[-1] + float(hops.sum())
        for i in range(p):
            backwards = pulp.lpSum(self.backward[i:]) + (m - 1) * top_b[p - 1 - i]
            tail = backwards + float(hops[i:].sum()) + self.reduce[i]
            self._add(self.end >= forwards + tail, f"gpipe_{i}")

    def _maxima(self, name: str, seconds: list[Any]) -> list[Any]:
        """Variables at least as large as the seconds so far."""
        tops = [self._seconds(f"{name}_{i}") for i in range(len(seconds))]
        for i, top in enumerate(tops):
            self._add(top >= seconds[i], f"{name}_own_{i}")
            if i:
                self._add(top >= tops[i - 1], f"{name}_before_{i}")
        return tops

    def staircase_rows(self) -> None:
        """T5, and the steady state through the stages below where hops take time."""
        p, m = self.p, self.m
        fm, bm = self._maxima("fm", self.forward), self._maxima("bm", self.backward)
        trips = np.append(0.0, 2 * np.cumsum(self.hops))
        head = [self._seconds(f"head_{i}") for i in range(p + 1)]
        self._add(head[0] == 0, "head_0")
        for i in range(p):
            passed = self.forward[i] + self.backward[i]
            self._add(head[i + 1] - head[i] - passed == 0, f"head_{i + 1}")

        def through(i: int, e: int) -> Any:
            return head[e + 1] - head[i] + float(trips[e] - trips[i])

        for i in range(p):
            w, t = min(p - i, m), self.forward[i] + self.backward[i]
            before = head[i] + float(trips[i]) + self.reduce[0]
            below = range(i, p)
            held = {e: min(p - e, m) for e in below}
            if m <= w:
                for e in below:
                    x, y = (held[e] - 1) * fm[e], (held[e] - 1) * bm[e]
                    late = (m - held[e]) * (self.forward[e] + self.backward[e])
                    ways = (x + (m - 1) * self.backward[i], y + (m - 1) * self.forward[i])
                    for number, way in enumerate((*ways, x + y + late)):
                        row = self.end >= before + through(i, e) + way
                        self._add(row, f"short_{i}_{e}_{number}")
                continue
            up, down = self._seconds(f"up_{i}"), self._seconds(f"down_{i}")
            for e in below:
                self._add(up >= through(i, e) + (held[e] - 1) * fm[e], f"up_{i}_{e}")
                self._add(down >= through(i, e) + (held[e] - 1) * bm[e], f"down_{i}_{e}")
                if e > i and not self.hops.any():
                    continue
                turns, rest = divmod(m - 1 - w, e - i + 1)
                steady = turns * through(i, e) + rest * t
                self._add(self.end >= before + up + down + steady, f"steady_{i}_{e}")

    def add_path(self) -> bool:
        """path_row: the longest path through the actions with the seconds of the solution. False
        where E is that long already."""
        seconds = np.zeros((3, self.p))
        for kind, variables in enumerate((self.forward, self.backward)):
            seconds[kind] = [max(each.varValue, 0.0) for each in variables]
        reduce = np.array([max(each.varValue, 0.0) for each in self.reduce])
        path = critical_path(self.tables.schedule, self.m, seconds, reduce, self.hops)
        if path.end_seconds <= self.end.varValue * (1 + TOLERANCE / 10):
            return False
        sums = [
            pulp.LpAffineExpression(list(zip(variables, numbers.tolist(), strict=True)))
            for variables, numbers in zip((self.forward, self.backward), path.actions, strict=False)
        ]
        row = sums[0] + sums[1] + path.latency_seconds + self.reduce[path.stage]
        self._add(self.end >= row, f"path_{len(self.rows)}")
        return True

    def solve(
        self, time_limit_seconds: float | None
    ) -> tuple[Status, float, tuple[Counts, Counts] | None]:
        """Status, bound in seconds, and the plan as (layers, layers that recompute)."""
        self._run(time_limit_seconds, SOLVER_OPTIONS)
        if self.problem.solverModel.getModelStatus().name == GAVE_UP:
            self._run(time_limit_seconds, SOLVER_OPTIONS | {"presolve": "off"})
        outcome = self.problem.sol_status
        if outcome == pulp.LpSolutionInfeasible:
            return "infeasible", np.inf, None
        # pulp hands no constant of the objective to HiGHS, and no bound back
        bound = float(self.problem.solverModel.getInfo().mip_dual_bound) * self.unit
        bound += self.tables.fixed
        if outcome == pulp.LpSolutionNoSolutionFound:
            return "stopped", max(bound, 0.0), None
        # on a time limit pulp's `status` says optimal; only `sol_status` tells
        status: Status = "optimal" if outcome == pulp.LpSolutionOptimal else "stopped"
        return status, bound, self._plan()

    def _run(self, time_limit_seconds: float | None, options: Mapping[str, Any]) -> None:
        solver = pulp.HiGHS(
            msg=False,
            threads=1,
            gapRel=0.0,
            gapAbs=0.0,
            timeLimit=time_limit_seconds,
            **options,
        )
        with _no_banner():
            self.problem.solve(solver)

    def _plan(self) -> tuple[Counts, Counts]:
        taken = [max(own, key=lambda each: self.choice[each].varValue) for own in self.own]
        return tuple(each[2] for each in taken), tuple(each[3] for each in taken)


@contextmanager
def _no_banner() -> Iterator[None]:
    """Nothing on standard output: HiGHS greets there when it is first made, whatever it is told."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
