"""Variety: a few unlike plans of one space, for running them side by side.

To validate predictions one must run more than the winner. The best plan of every mesh (dp, tp,
pp) comes first, then the best plan of every variant of a mesh (ZeRO stage, schedule, recompute,
uneven stages), each group in the order of its predicted time.
"""

import numpy as np

from planner.cost.blocks import Blocks
from planner.search.tabulated.search import plan_of_row
from planner.search.tabulated.table import Table
from planner.spec.layout import even_counts
from planner.spec.plan import Plan

Key = tuple[object, ...]


def unlike(blocks: Blocks, tables: tuple[Table, ...], count: int) -> tuple[Plan, ...]:
    """Up to `count` plans that fit, predicted by replay, the fastest mesh first."""
    found: dict[Key, tuple[float, int, int]] = {}
    for index, table in enumerate(tables):
        for row in np.flatnonzero(table.peak_bytes <= blocks.cluster.memory_bytes).tolist():
            entry = (float(table.step_seconds[row]), index, row)
            for key in (_mesh(table, row), _variant(table, row)):
                if entry < found.get(key, (np.inf, 0, 0)):
                    found[key] = entry
    meshes = sorted(entry for key, entry in found.items() if key[0] == "mesh")
    variants = sorted(entry for key, entry in found.items() if key[0] == "variant")
    chosen = list(dict.fromkeys((table, row) for _, table, row in [*meshes, *variants]))
    return tuple(plan_of_row(blocks, tables[t], row) for t, row in chosen[:count])


def _mesh(table: Table, row: int) -> Key:
    candidates = table.candidates
    return ("mesh", int(candidates.dp[row]), int(candidates.tp[row]), candidates.pp)


def _variant(table: Table, row: int) -> Key:
    candidates = table.candidates
    counts = candidates.layer_counts(row)
    uneven = counts != even_counts(sum(counts), candidates.pp)
    choices = (candidates.schedule, candidates.recompute, int(candidates.zero[row]), uneven)
    return ("variant", *_mesh(table, row)[1:], *choices)
