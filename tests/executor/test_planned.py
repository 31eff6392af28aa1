"""Whatever the planner may choose for this executor, the executor does not refuse."""

from collections.abc import Callable, Iterator

import pytest

from executor import refusals
from planner.cost.candidates import Candidates
from planner.search.outer import space
from planner.search.tabulated import space as tabulated_space
from planner.spec import catalog
from planner.spec.cluster import ClusterSpec
from planner.spec.layout import even_counts, make_stages
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import cpu_cluster, gpu_cluster
from tests.executor.plans import ALL

NATIVE = catalog.find_runtime("native")
DEVICES = 8
WORK = Workload(seq_len=16, global_batch=8, dtype="fp32")
Choices = Callable[[ModelSpec], Iterator[Candidates]]
MOST = 150
"""Choices of one model that are looked at, evenly over all of them."""


def exact(model: ModelSpec) -> Iterator[Candidates]:
    question = space.Question(model, gpu_cluster(nodes=1), WORK, NATIVE, DEVICES)
    yield from space.legal(question)


def on_shared_cores(model: ModelSpec) -> Iterator[Candidates]:
    yield from tabulated_space.legal(model, cpu_cluster(DEVICES), WORK, NATIVE, DEVICES)


def plan(model: ModelSpec, cluster: ClusterSpec, table: Candidates, row: int) -> Plan:
    layout = table.layout(row)
    counts = even_counts(model.layers, layout.pp * layout.vpp)
    return Plan(
        model=model,
        cluster=cluster,
        workload=WORK,
        runtime=NATIVE,
        layout=layout,
        stages=make_stages(layout, counts),
    )


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("choices", [exact, on_shared_cores])
def test_a_planned_choice_is_not_refused(choices: Choices, name: str) -> None:
    model, cluster = ALL[name], gpu_cluster(nodes=1)
    found = [(table, row) for table in choices(model) for row in range(len(table))]
    assert found
    for table, row in found[:: max(1, len(found) // MOST)]:
        refusals.check(plan(model, cluster, table, row))
