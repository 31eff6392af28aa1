"""Cases predicted together are those predicted alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.calibration.case_tables import CaseTables, problem
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import estimate
from planner.cost.stage_split import usual_counts
from planner.spec.calibration import calibrated
from planner.spec.layout import Layout, make_stages
from planner.spec.runs.case import Case
from planner.spec.workload import Workload
from tests.cost.drawn import SEQ, wide, with_experts
from tests.examples import gpt2_like, gpu_cluster, llama_like, plain_runtime
from tests.spec.runs.test_case import case

DRAWN = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MODELS = (gpt2_like(layers=8), llama_like(layers=8), wide())
RUNTIMES = (plain_runtime(), plain_runtime(overlaps_dp=True, stage_split="cost"))
ORDERS = (("tp", "cp", "ep", "dp", "pp"), ("dp", "tp", "cp", "ep", "pp"))
RUN = case()


def made(layout: Layout, nodes: int, **parts: Any) -> Case:
    """A case of two microbatches per stage."""
    batch = 2 * layout.pp * layout.dp * layout.micro_batch
    question = {
        "model": MODELS[0],
        "runtime": RUNTIMES[0],
        "cluster": gpu_cluster(nodes=nodes),
        "workload": Workload(seq_len=SEQ, global_batch=batch),
    }
    return dataclasses.replace(RUN, layout=layout, **(question | parts))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = {"dp": [1, 2, 4], "tp": [1, 2, 4], "pp": [1, 2, 4], "micro_batch": [1, 2]}
    degrees = {name: draw(st.sampled_from(values)) for name, values in sizes.items()}
    degrees |= {"cp": draw(st.sampled_from([1, 2])), "zero": draw(st.integers(0, 3))}
    degrees["vpp"] = draw(st.sampled_from([1, 2])) if degrees["pp"] > 1 else 1
    layout = Layout(
        **degrees,
        recompute=draw(st.sampled_from(["none", "full"])),
        shard=2 if degrees["dp"] == 4 and degrees["zero"] and draw(st.booleans()) else None,
        axis_order=draw(st.sampled_from(ORDERS)),
    )
    nodes = -(-layout.devices // 8)
    cluster = gpu_cluster(nodes=nodes, launch_seconds=draw(st.sampled_from([5e-6, 1e-5])))
    if draw(st.booleans()):
        gains = tuple(t.replace(congestion=0.3, in_network_gain=1.5) for t in cluster.tiers)
        cluster = cluster.replace(tiers=gains)
    parts = {"model": draw(st.sampled_from(MODELS)), "runtime": draw(st.sampled_from(RUNTIMES))}
    return made(layout, nodes, cluster=cluster, **parts)


VALUES = st.sampled_from(
    [{}, {"matmul_efficiency": 0.4, "step_seconds": 0.1}, {"network_efficiency": 0.3}]
)


def alone(one: Case, values: dict[str, float]) -> tuple[float, float]:
    """By `estimate` on the case's own cluster."""
    cluster, runtime = calibrated(values, one.cluster, one.runtime)
    blocks = Blocks(one.model, cluster, one.workload, runtime, None)
    counts = usual_counts(one.model, one.runtime, one.layout.pp)
    flat = one.layout.replace(vpp=1)
    row = Candidates.of_plan(flat, make_stages(flat, counts), one.workload.global_batch)
    found = estimate(blocks, dataclasses.replace(row, vpp=one.layout.vpp, chunks=None))
    return float(found.step_seconds[0]), float(found.peak_bytes[0])


@DRAWN
@given(st.lists(st.tuples(cases(), VALUES), min_size=1, max_size=12))
def test_together_is_alone(drawn: list[tuple[Case, dict[str, float]]]) -> None:
    asked, values = [list(column) for column in zip(*drawn, strict=True)]
    assert [problem(each) for each in asked] == [None] * len(asked)
    seconds, peaks = CaseTables(asked).predict(values)
    expected = np.array([alone(each, own) for each, own in drawn])
    assert seconds == pytest.approx(expected[:, 0], rel=1e-12)
    assert peaks == pytest.approx(expected[:, 1], rel=1e-12)


@DRAWN
@given(st.lists(cases(), min_size=2, max_size=12), st.randoms(use_true_random=False), VALUES)
def test_the_order_of_the_cases_does_not_matter(asked, random, values) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(asked)))
    random.shuffle(order)
    before = CaseTables(asked).predict(values)
    after = CaseTables([asked[i] for i in order]).predict(values)
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one[order], other)


def test_runs_of_several_sizes_are_one_table() -> None:
    """2, 4 and 8 nodes: the cluster of the table is the largest."""
    asked = [made(Layout(dp=dp, tp=8), dp) for dp in (2, 4, 8)]
    tables = CaseTables(asked)
    assert len(tables.tables) == 1
    assert tables.kinds[0].cluster.nodes == 8
    assert tables.predict({})[0].tolist() == [alone(each, {})[0] for each in asked]


def test_devices_of_one_name_and_other_numbers_are_told_apart() -> None:
    """A user's own accelerator may keep the catalog's name."""
    asked = [
        made(Layout(dp=8), 1, cluster=gpu_cluster(launch_seconds=launch)) for launch in (1e-6, 1e-4)
    ]
    quick, slow = CaseTables(asked).predict({})[0]
    assert slow > 10 * quick


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(pp=16), "pp=16 exceeds the model's 8 layers"),
        (Layout(tp=3), "tp=3 does not divide heads=4"),
        (Layout(cp=3), "cp=3"),
        (Layout(ep=2), "divide experts"),
    ],
)
def test_what_cannot_be_predicted_says_why(layout: Layout, words: str) -> None:
    told = problem(made(layout, 8))
    assert told is not None
    assert words in told


def test_experts_shared_by_ranks_are_predicted_as_such() -> None:
    layouts = [Layout(dp=4, tp=2, micro_batch=1, ep=2, etp=etp) for etp in (1, 2)]
    found = [made(layout, 1, model=with_experts(wide())) for layout in layouts]
    together = CaseTables(found).predict({})[0]
    alone = [CaseTables([each]).predict({})[0][0] for each in found]
    assert together.tolist() == pytest.approx(alone)
    assert together[0] != together[1]
