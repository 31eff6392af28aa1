"""A survey of many tables says of every row what the estimate says of it alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import estimate
from planner.cost.survey import survey
from planner.search.outer import space
from planner.spec.layout import even_counts
from planner.spec.runtime import Recompute
from tests.cost.drawn import questions, replaced
from tests.examples import blocks, cpu_cluster
from tests.search import brute_force
from tests.search.problems import seeds

NAMES = ("step_seconds", "bound_seconds", "peak_bytes")


def check(asked: Blocks, tables: list[Candidates]) -> None:
    for table, found in zip(tables, survey(asked, tables), strict=True):
        expected = estimate(asked, table)
        for name in NAMES:
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)


def evenly(table: Candidates, layers: int, mode: Recompute) -> Candidates:
    counts = np.array([even_counts(layers, table.pp)] * len(table))
    again = counts if mode != "none" else np.zeros_like(counts)
    return replace(table, counts=counts, recomputed=again, recompute=mode)


def whole_space(seed: int) -> None:
    asked = brute_force.drawn(seed)
    parts = asked.model, asked.cluster, asked.workload, asked.runtime
    bare = list(space.legal(space.Question(*parts, asked.cluster.devices)))
    for mode in dict.fromkeys(("none", asked.runtime.recompute[-1])):
        check(asked, [evenly(table, asked.model.layers, mode) for table in bare])


@settings(max_examples=5)
@given(seeds)
def test_a_space_is_its_rows(seed: int) -> None:
    whole_space(seed)


@pytest.mark.slow
@settings(max_examples=300)
@given(seeds)
def test_a_space_is_its_rows_in_many_cases(seed: int) -> None:
    whole_space(seed)


@settings(max_examples=20)
@given(questions(), st.booleans())
def test_every_trait_is_in_a_survey(question: tuple[Blocks, Candidates], uneven: bool) -> None:
    """Tables that are not cut alike in all rows are estimated."""
    asked, table = question
    counts = table.counts.copy()
    if uneven and table.pp > 1:
        counts[0, [0, -1]] += [1, -1]
    check(asked, [replaced(table, counts=counts), table.take(np.arange(len(table))[::-1])])


def test_shared_cores_are_estimated() -> None:
    asked = blocks(cluster=cpu_cluster(4, cores=2))
    parts = asked.model, asked.cluster, asked.workload, asked.runtime
    bare = list(space.legal(space.Question(*parts, 4)))
    check(asked, [evenly(table, asked.model.layers, "none") for table in bare])
