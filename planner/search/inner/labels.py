"""Labels: the exact minimiser of a schedule's bound, by dynamic programming over Pareto labels.

State (i, u): the stages i .. p-1 hold the layers [u, L). Its labels are the seconds of
planner.search.inner.label_rules. From the last stage to the first, every label is extended by a
stage of n = 0 .. N layers; labels whose completion reaches the upper bound UB leave, then dominated
ones. The least completion at (0, 0) is the minimum of the bound over all plans below UB.

For gpipe, and for 1f1b without latency, the bound is the step itself, so this alone finds the
best plan (1f1b: as long as no reduction ends after the one of stage 0, which the replay of the
plan shows). Otherwise what is left stays open (planner.search.inner.cut). Layers of different kinds
do not make the state grow: stages are contiguous, so u says which layers are behind.

A label is dropped when another one of its state is no worse in every number (to 1e-12).
"""

from dataclasses import dataclass

import numpy as np

from planner.search.inner.completion import Tables, tables_below
from planner.search.inner.label_rules import Added, Rule, rule_of
from planner.search.inner.problem import RELATIVE, Counts, Floats, Ints, Problem

NOISE = 1e-12
"""Labels that differ less are equal: the rounding of some hundred additions."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least bound below UB and its plan (both None: no plan is below), and labels kept."""

    bound_seconds: float | None
    counts: Counts | None
    labels: int


def minimise(problem: Problem, upper: float = np.inf) -> Minimum:
    """The plan with the least bound below `upper`."""
    mirrored = problem.schedule == "1f1b" and not problem.hops.any()
    played = problem.mirrored if mirrored else problem
    tables = tables_below(played, upper)
    if not tables.enough:
        return Minimum(None, None, 0)
    rule = rule_of(tables, mirrored)
    labels, starts = rule.start(), np.array([problem.layers])
    trail: list[tuple[Ints, Ints]] = []
    kept = 0
    for i in reversed(range(problem.stages)):
        made = extended(rule, tables, i, labels, starts, upper)
        made = made.take(frontier(made.labels, made.starts))
        labels, starts = made.labels, made.starts
        trail.append((made.parents, made.held))
        kept += len(labels)
        if not len(labels):
            return Minimum(None, None, kept)
    value = rule.complete(labels, 0, starts)
    best = int(value.argmin())
    counts = _walk(trail, best)
    return Minimum(float(value[best]), counts[::-1] if mirrored else counts, kept)


def _walk(trail: list[tuple[Ints, Ints]], label: int) -> Counts:
    """The layers of each stage of one final label."""
    counts = []
    for parents, held in reversed(trail):
        counts.append(int(held[label]))
        label = int(parents[label])
    return tuple(counts)


@dataclass(frozen=True, slots=True, eq=False)
class Extended:
    """Labels of the stages from i on, their first layers, their parents, the layers of stage i and
    the least step of what they may become; [K] each but the labels."""

    labels: Floats
    starts: Ints
    parents: Ints
    held: Ints
    bounds: Floats

    def take(self, some: Ints) -> "Extended":
        """Some of them."""
        names = ("labels", "starts", "parents", "held", "bounds")
        return Extended(*(getattr(self, name)[some] for name in names))


def extended(
    rule: Rule, tables: Tables, i: int, labels: Floats, starts: Ints, upper: float
) -> Extended:
    """Every label with every stage i in front of it that may stay below `upper`."""
    parents, held = (
        each.ravel() for each in np.indices((len(labels), tables.most + 1), dtype=np.int64)
    )
    ends = starts[parents]
    row = ends if tables.total.shape[1] > 1 else np.zeros_like(ends)
    fits = (held <= ends) & np.isfinite(tables.total[i, row, held])
    fits &= np.isfinite(rule.sum_t[i, np.maximum(ends - held, 0)])
    parents, held, ends, row = parents[fits], held[fits], ends[fits], row[fits]
    names = ("forward", "backward", "weight", "reduce", "update")
    seconds = (getattr(tables, name)[i, row, held] for name in names)
    added = Added(i, ends - held, *seconds)
    made = rule.extend(labels[parents], added)
    bounds = rule.complete(made, i, added.start)
    below = np.flatnonzero(bounds < upper * (1 - RELATIVE))
    return Extended(made, added.start, parents, held, bounds).take(below)


def frontier(labels: Floats, group: Ints) -> Ints:
    """Numbers of the labels that no other of their group dominates, ascending.

    The least sum of a group is never dominated: it leads, leaves with all that it dominates, and
    the next one leads.
    """
    left = np.lexsort((labels.sum(axis=1), group))
    # numbers that are the same in all labels decide nothing; one row per number, which numpy likes
    differs = (labels != labels[:1]).any(axis=0)
    numbers, own = labels[left][:, differs].T.copy(), group[left]
    kept: list[Ints] = []
    while len(left):
        first = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
        kept.append(left[first])
        led = np.diff(np.append(first, len(left)))
        leader = np.repeat(numbers[:, first] * (1 - NOISE), led, axis=1)
        better = np.asarray((numbers < leader).any(axis=0))
        better[first] = False
        left, own, numbers = left[better], own[better], numbers[:, better]
    return np.sort(np.concatenate(kept)) if kept else left
