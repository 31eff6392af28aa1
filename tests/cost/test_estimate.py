"""Laws of the estimate: more of a good thing never hurts, and bounds are bounds."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.estimate import estimate
from planner.cost.memory import stage_memory
from planner.cost.stages import stage_times
from planner.search import space
from planner.simulator.replay import replay
from planner.spec.cluster import ClusterSpec
from tests.examples import blocks, cpu_cluster, gpt2_like, gpu_cluster, llama_like, plain_runtime

EVERYTHING = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
models = st.sampled_from([gpt2_like(), llama_like(), llama_like(layers=7)])
devices = st.sampled_from([1, 2, 4, 8, 16])


def tables(asked, count: int):  # type: ignore[no-untyped-def]
    return list(space.legal(asked.model, asked.cluster, asked.workload, asked.runtime, count))


def faster(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    tiers = tuple(
        tier.replace(bandwidth_bytes_per_second=tier.bandwidth_bytes_per_second * factor)
        for tier in cluster.tiers
    )
    return cluster.replace(tiers=tiers)


@EVERYTHING
@given(models, devices, st.floats(1.0, 100.0), st.booleans())
def test_more_bandwidth_is_never_slower(model, count, factor, overlaps):  # type: ignore[no-untyped-def]
    cluster, runtime = gpu_cluster(nodes=2), plain_runtime(overlaps_dp=overlaps)
    slow = blocks(model, cluster, runtime=runtime)
    quick = blocks(model, faster(cluster, factor), runtime=runtime)
    for table in tables(slow, count):
        before, after = (estimate(each, table).step_seconds for each in (slow, quick))
        assert (after <= before * (1 + 1e-12)).all()


@EVERYTHING
@given(models, devices)
def test_exposed_reduction_never_exceeds_the_link_time(model, count):  # type: ignore[no-untyped-def]
    exposed = blocks(model, gpu_cluster(nodes=2), runtime=plain_runtime(overlaps_dp=True))
    link = blocks(model, gpu_cluster(nodes=2), runtime=plain_runtime(overlaps_dp=False))
    for table in tables(link, count):
        hidden, whole = (stage_times(each, table).reduce for each in (exposed, link))
        assert (hidden <= whole * (1 + 1e-12)).all()
        assert (hidden >= 0).all()


@EVERYTHING
@given(models, devices, st.randoms(use_true_random=False))
def test_the_bound_never_exceeds_the_replay(model, count, random):  # type: ignore[no-untyped-def]
    asked = blocks(model, gpu_cluster(nodes=2))
    for table in tables(asked, count):
        estimates = estimate(asked, table)
        row = random.randrange(len(table))
        step = replay(asked, table, estimates, row).step_seconds
        assert estimates.bound_seconds[row] <= step * (1 + 1e-12)


@EVERYTHING
@given(models, st.sampled_from([1, 2, 4, 8]), st.randoms(use_true_random=False))
def test_replay_is_at_least_every_stages_work(model, count, random):  # type: ignore[no-untyped-def]
    for cluster in (gpu_cluster(), cpu_cluster(count)):
        asked = blocks(model, cluster)
        for table in tables(asked, count):
            estimates = estimate(asked, table)
            row = random.randrange(len(table))
            times = estimates.times
            busy = (times.forward + times.backward)[row] * table.microbatches[row]
            step = replay(asked, table, estimates, row).step_seconds
            assert step >= (busy + times.reduce[row] + times.optimizer[row]).max() * (1 - 1e-9)


def test_closed_form_is_the_replay_on_one_stage() -> None:
    asked = blocks()
    for table in tables(asked, 8):
        if table.pp > 1:
            continue
        estimates = estimate(asked, table)
        for row in range(len(table)):
            step = replay(asked, table, estimates, row).step_seconds
            assert step == pytest.approx(estimates.step_seconds[row], rel=1e-12)


def test_zero_one_shards_only_the_optimizer() -> None:
    asked = blocks()
    table = next(t for t in tables(asked, 8) if t.pp == 1)
    memory = stage_memory(asked, table)
    rows = {z: np.flatnonzero((table.dp == 8) & (table.zero == z))[0] for z in (0, 1)}
    assert memory.optimizer[rows[1]] == pytest.approx(memory.optimizer[rows[0]] / 8, rel=1e-2)
    assert memory.weights[rows[1]] == memory.weights[rows[0]]
    assert memory.gradients[rows[1]] == memory.gradients[rows[0]]


def test_recompute_trades_time_for_memory() -> None:
    asked = blocks(llama_like(layers=8))
    kept, again = (
        next(t for t in tables(asked, 8) if t.pp == 2 and t.recompute == mode)
        for mode in ("none", "full")
    )
    assert (estimate(asked, again).step_seconds > estimate(asked, kept).step_seconds).all()
    deep = kept.counts.max(axis=1) > 2
    less = stage_memory(asked, again).activations.max(axis=1)
    assert (less < stage_memory(asked, kept).activations.max(axis=1))[deep].all()


def test_more_ranks_than_cores_take_longer_in_proportion() -> None:
    from_two = blocks(cluster=cpu_cluster(4, cores=2))
    from_four = blocks(cluster=cpu_cluster(4, cores=4))
    for table in tables(from_two, 4):
        if table.pp > 1:
            continue
        crowded, free = (
            replay(each, table, estimate(each, table), 0).step_seconds
            for each in (from_two, from_four)
        )
        assert crowded == pytest.approx(2 * free, rel=1e-9)
