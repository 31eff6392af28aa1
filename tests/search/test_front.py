"""The front of time, memory and cost, and the fewest devices, against every plan there is."""

import re

import numpy as np
import pytest

from planner.cost.blocks import Blocks
from planner.search import planning
from planner.search.exact import rank_exactly
from planner.search.fewest import sizes_of
from planner.search.front import STEP, front
from planner.search.optimum import rank
from planner.search.ranking import NoPlanError
from planner.search.wishes import Wishes
from planner.spec.divisors import divisors
from planner.spec.documents import InputError
from planner.spec.workload import Workload
from tests.examples import blocks, cpu_cluster, gpu_cluster, llama_like
from tests.search import brute_force

Values = np.ndarray
"""Step seconds and peak bytes of plans, [plans, 2]."""


def every_plan(asked: Blocks, devices: int) -> Values:
    """All plans on so many devices of the cluster."""
    found = [
        np.stack([played.step_seconds, played.peak_bytes], axis=1)
        for one in brute_force.outer_choices(asked, devices)
        for played in [brute_force.play(asked, one)]
    ]
    return np.concatenate(found) if found else np.zeros((0, 2))


def check_front(seed: int) -> int:
    asked = brute_force.drawn(seed, zero_stages=(0, 1), axes=("tp", "dp", "pp"))
    cluster = asked.cluster
    sizes = [cluster.devices_per_node * n for n in divisors(cluster.nodes)]
    plans = {size: every_plan(asked, size) for size in sizes}
    peaks = np.concatenate([each[:, 1] for each in plans.values()])
    if not len(peaks):
        return 0
    asked = brute_force.with_memory(asked, float(np.quantile(peaks, 0.8)))
    capacity = asked.cluster.memory_bytes
    found = front(asked, capacity, Wishes())
    assert found.sizes == tuple(sizes)
    points = [(p.plan.layout.devices, *p.values) for p in found.points]
    for devices, step, peak, dollars in points:
        others = plans[devices]
        fits = others[:, 1] <= peak * (1 + 1e-9)
        # the fastest of all that need no more, and played by brute force too
        assert step <= others[fits, 0].min() * (1 + 1e-9 + found.gap)
        assert np.isclose(others[fits, 0], step, rtol=1e-9).any()
        assert not any(
            s <= step and p <= peak and d <= dollars and (s, p, d) != (step, peak, dollars)
            for _, s, p, d in points
        )
    price = dollars / step / devices
    for devices, others in plans.items():
        for number in range(1, round(1 / STEP) + 1):
            limit = number * STEP * capacity
            fits = others[:, 1] <= limit
            if not fits.any():
                continue
            best = others[fits, 0].min() * (1 + 1e-9 + found.gap)
            cost = price * devices * best
            assert any(s <= best and p <= limit and d <= cost for _, s, p, d in points)
    return len(points)


@pytest.mark.parametrize("seed", [0, 3])
def test_no_plan_is_better_than_the_front_at_any_limit(seed: int) -> None:
    check_front(seed)


@pytest.mark.slow
def test_no_plan_is_better_than_the_front_in_many_cases() -> None:
    assert sum(check_front(seed) for seed in range(200, 240)) > 80


def check_fewest(seed: int) -> None:
    asked = brute_force.drawn(seed, zero_stages=(0, 1), axes=("tp", "dp", "pp"))
    capacity = asked.cluster.memory_bytes
    fastest = {}
    for size in sizes_of(asked):
        plans = every_plan(asked, size)
        fits = plans[:, 1] <= capacity
        fastest[size] = plans[fits, 0].min() if fits.any() else np.inf
    tokens = asked.workload.tokens
    for step in {*fastest.values()} - {np.inf}:
        least = min(size for size, best in fastest.items() if best <= step * 1.01)
        found = rank_exactly(asked, "devices", 1, True, None, tokens / (step * 1.01))
        best = found.plans[0]
        assert best.layout.devices == least
        assert best.predicted is not None
        assert best.predicted.step_seconds == pytest.approx(fastest[least], rel=1e-9)
        assert best.asked is not None
        assert best.asked.throughput == pytest.approx(tokens / step / 1.01)
        assert f"{least} devices reach" in found.claim
    with pytest.raises(NoPlanError, match="no plan reaches"):
        rank_exactly(asked, "devices", 1, True, None, tokens / min(fastest.values()) * 1.01)


@pytest.mark.parametrize("seed", [1, 4])
def test_fewer_devices_do_not_reach_the_throughput(seed: int) -> None:
    check_fewest(seed)


@pytest.mark.slow
def test_fewer_devices_do_not_reach_the_throughput_in_many_cases() -> None:
    for seed in range(300, 330):
        check_fewest(seed)


def test_the_front_is_a_table_and_json_that_name_the_family() -> None:
    found = planning.pareto(blocks(cluster=gpu_cluster(nodes=2)))
    assert len(found.rows()) == len(found.points) >= 1
    assert "every memory limit in steps of 5%" in found.claim
    value = found.json()
    assert value["schema"] == "pareto/1"
    assert value["sizes"] == [8, 16]
    assert {"step_seconds", "headroom_bytes", "usd_per_step"} <= set(value["front"][0])


def test_explain_keeps_to_the_fewest_devices() -> None:
    asked = blocks(llama_like(layers=4), gpu_cluster(nodes=2))
    best = rank(asked, "time", 1).plans[0].predicted
    assert best is not None
    reached = asked.workload.tokens / best.step_seconds
    plan = rank(asked, "devices", 1, throughput=reached / 4).plans[0]
    assert plan.layout.devices < 16
    for each in planning.explain(plan).neighbours:
        assert each.plan is None or each.plan.layout.devices == plan.layout.devices


@pytest.mark.parametrize(
    ("objective", "throughput", "message"),
    [
        ("devices", None, "need each other"),
        ("time", 10.0, "need each other"),
        ("devices", -1.0, "choose a number above 0"),
        ("speed", None, "choose time, cost or devices"),
    ],
)
def test_objectives_that_cannot_be_are_refused(
    objective: str, throughput: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        planning.choose(blocks(), objective, throughput=throughput)


def test_shared_cores_have_no_front() -> None:
    work = Workload(seq_len=32, global_batch=8, dtype="fp32")
    asked = blocks(cluster=cpu_cluster(4), workload=work)
    with pytest.raises(InputError, match="--pareto"):
        planning.pareto(asked)
    with pytest.raises(InputError, match="not local"):
        planning.choose(asked, "devices", throughput=1.0)
