"""Promising: outer choices whose even cut is fast, so that a good value is known early.

A search leaves out what cannot beat the best value known, long before it solves anything, so the
first good plan pays for itself. Of every table the choices of least bound are cut evenly, without
recomputation and with all of it, and surveyed (planner.cost.survey): the best of schedules whose
closed form is exact and the best of the others are worth solving. Nothing is concluded from the
survey itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.estimate import EXACT
from planner.cost.stage_split import usual_counts
from planner.cost.survey import survey
from planner.search.inner.cut import Allows
from planner.search.outer.terms import Terms
from planner.spec.runtime import Recompute

OF_EACH = 64
"""Choices of a table that are surveyed. Assumed: bounds order choices of one table well."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A choice, and the value of its even cut."""

    value: float
    one: Candidates


def promising(
    blocks: Blocks,
    tables: Sequence[Candidates],
    bounds: Sequence[Floats],
    terms: Terms,
    known: float,
) -> list[Promise]:
    """The best choice whose schedule is exact and the best of the others, where they promise less
    than `known`."""
    rows = [_least(bound, known) for bound in bounds]
    some = [table.take(each) for table, each in zip(tables, rows, strict=True) if len(each)]
    best: dict[bool, Promise] = {}
    for mode in _modes(blocks, terms.wishes.allows):
        cut = [_evenly(blocks, table, mode) for table in some]
        for table, made in zip(some, survey(blocks, cut), strict=True):
            value = made.step_seconds * terms.weight(blocks, table)
            value = np.where(made.peak_bytes <= terms.limit_bytes, value, np.inf)
            place, exact = int(value.argmin()), table.schedule in EXACT
            least = best[exact].value if exact in best else known
            if value[place] < least:
                best[exact] = Promise(float(value[place]), table.take(np.array([place])))
    return sorted(best.values(), key=lambda each: each.value)


def _least(bound: Floats, known: float) -> Ints:
    """The places of the least bounds below `known`."""
    near = np.flatnonzero(bound < known)
    if len(near) <= OF_EACH:
        return near
    return near[np.argpartition(bound[near], OF_EACH)[:OF_EACH]]


def _modes(blocks: Blocks, allows: Allows) -> list[Recompute]:
    """No recomputation and the strongest there is, as far as the user allows them."""
    found: list[Recompute] = ["none", blocks.runtime.recompute[-1]]
    return [mode for mode in dict.fromkeys(found) if allows(mode)]


def _evenly(blocks: Blocks, table: Candidates, mode: Recompute) -> Candidates:
    counts = np.array([usual_counts(blocks.model, blocks.runtime, table.pp)], dtype=np.int64)
    held = np.broadcast_to(counts, (len(table), table.pp))
    again = held if mode != "none" else np.zeros_like(held)
    return replace(table, counts=held, recomputed=again, recompute=mode)
