"""Branch and bound: the best cut of a problem whose label bound is below the replay of its plan.

planner.search.inner.labels minimises a bound that leaves some paths out: reductions that end after
the one of stage 0, turns between inner intervals where hops take time, most of zb-h1. Here no path
is left out at the leaves, and fewer at the nodes.

A node is the stages i .. p-1 with their layers [u, L); a child puts a stage in front. Its bound is
the larger of the label's completion (planner.search.inner.label_rules) and of the suffix replay:
the ranks before i are deleted with all their edges and the rest is played exactly, F(i,0) starting
at 0. With end_j the ends of the stages j >= i there, and of the stages before the least sums of
planner.search.inner.completion with their hops,

    step >= fixed + max update + max( sum f before + max_j (end_j + reduce_j),
                                      sum t before + end_i + least reduce_0 )

since F(i,0) waits for a forward of every stage before, and (where backwards are not split) the last
backward of stage i is followed by one of each. Proof: deleting actions and edges removes paths and
adds none, and both lines prolong a path that is left. At i = 0 the first line is the step itself.

Depth first, the AT_ONCE best nodes of the deepest level together, because numpy plays many plans
in the time of one; children whose bound does not stay below the best step leave. A dominated label
is kept: it may have the better replay. After `limit` nodes the search stops, and the least bound of
what is left is returned. Nothing depends on a clock.
"""

from dataclasses import dataclass, field

import numpy as np

from planner.search.inner.completion import Tables, tables_below
from planner.search.inner.label_rules import Rule, rule_of
from planner.search.inner.labels import Extended, extended
from planner.search.inner.problem import RELATIVE, Counts, Floats, Ints, Problem, choose
from planner.search.inner.static_order import ends

AT_ONCE = 64
"""Nodes expanded together. Assumed: a wave of 64 plans on 16 ranks is still cheap in numpy."""
NODES = 20_000
"""How many nodes are bounded at most. Measured: 0.1 to 0.2 CPU s of a drawn problem that
needs them; questions with the real cost needed 38 at most (docs/search.md)."""


@dataclass(frozen=True, slots=True)
class Branched:
    """The best plan below the bound that was asked for (counts None: there is none).

    open_seconds: least bound of the nodes that were not expanded, infinite if none is left. nodes:
    how many were bounded."""

    step_seconds: float
    counts: Counts | None
    open_seconds: float
    nodes: int


def branch(problem: Problem, upper: float, limit: int = NODES) -> Branched:
    """The best plan of less than `upper` seconds."""
    return _Search(problem, upper, limit).run()


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """Labels, first layers, layers of the stages from i on, [K, p - i], and bounds of K nodes."""

    labels: Floats
    starts: Ints
    counts: Ints
    bounds: Floats

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, some: Ints) -> "_Nodes":
        return _Nodes(*(getattr(self, name)[some] for name in self.__slots__))

    def joined(self, other: "_Nodes") -> "_Nodes":
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return _Nodes(*(np.concatenate(pair) for pair in pairs))


@dataclass(slots=True)
class _Search:
    problem: Problem
    upper: float
    limit: int
    tables: Tables = field(init=False)
    rule: Rule = field(init=False)
    best: Counts | None = None
    nodes: int = 0

    def __post_init__(self) -> None:
        self.tables = tables_below(self.problem, self.upper)
        self.rule = rule_of(self.tables, mirrored=False)

    def run(self) -> Branched:
        """Until nothing is left below the best step, or too many nodes were."""
        p, layers = self.problem.stages, self.problem.layers
        nothing = np.zeros((1, 0), dtype=np.int64)
        root = _Nodes(self.rule.start(), np.array([layers]), nothing, np.full(1, -np.inf))
        levels = {p: root}
        while levels and self.nodes < self.limit:
            i = min(levels)
            some, rest = self._first(levels.pop(i))
            if len(rest):
                levels[i] = rest
            made = self._children(i - 1, some)
            if i == 1:
                self._leaves(made)
            elif len(made):
                levels[i - 1] = made.joined(levels[i - 1]) if i - 1 in levels else made
        left = [float(each.bounds.min()) for each in levels.values()]
        unsolved = min((bound for bound in left if self._below(bound)), default=np.inf)
        step = self.upper if self.best is not None else np.inf
        return Branched(step, self.best, unsolved, self.nodes)

    def _below(self, bound: float) -> bool:
        return bound < self.upper * (1 - RELATIVE)

    def _first(self, nodes: _Nodes) -> tuple[_Nodes, _Nodes]:
        """The best nodes that are still below the best step, and the others."""
        kept = np.flatnonzero(nodes.bounds < self.upper * (1 - RELATIVE))
        kept = kept[np.argsort(nodes.bounds[kept], kind="stable")]
        return nodes.take(kept[:AT_ONCE]), nodes.take(kept[AT_ONCE:])

    def _children(self, i: int, nodes: _Nodes) -> _Nodes:
        made = extended(self.rule, self.tables, i, nodes.labels, nodes.starts, self.upper)
        counts = np.concatenate([made.held[:, None], nodes.counts[made.parents]], axis=1)
        self.nodes += len(counts)
        bounds = np.maximum(made.bounds, self._replayed(i, made, counts))
        found = _Nodes(made.labels, made.starts, counts, bounds)
        return found.take(np.flatnonzero(bounds < self.upper * (1 - RELATIVE)))

    def _replayed(self, i: int, made: Extended, counts: Ints) -> Floats:
        """The bound of the file's head; the step where i = 0."""
        rule, u, problem = self.rule, made.starts, self.problem
        chosen = choose(problem, counts, i)
        end = ends(problem, chosen, i)
        least = rule.sum_f[i, u] + rule.above[i] + (end + chosen.reduce).max(axis=1)
        if problem.weight is None:
            climb = rule.sum_t[i, u] + 2 * rule.above[i] + end[:, 0]
            least = np.maximum(least, climb + (rule.reduce if i else chosen.reduce[:, 0]))
        update = np.maximum(chosen.update.max(axis=1), rule.top_v[i, u])
        result: Floats = least + update + problem.fixed
        return result

    def _leaves(self, plans: _Nodes) -> None:
        """Keep the best of them: all are below the best step so far."""
        if len(plans):
            place = int(plans.bounds.argmin())
            self.best = tuple(plans.counts[place].tolist())
            self.upper = float(plans.bounds[place])
