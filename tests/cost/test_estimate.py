"""Laws of the estimate: more of a good thing never hurts, and bounds are bounds."""

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.collectives import Floats
from planner.cost.estimate import estimate
from planner.cost.memory import stage_memory
from planner.cost.stages import stage_times
from planner.search.tabulated import space
from planner.search.tabulated.search import tables_of
from planner.simulator.replay import replay
from planner.spec.cluster import ClusterSpec
from planner.spec.layout import make_stages
from planner.spec.workload import Workload
from tests.cost.drawn import again, one_row, questions, replaced, wide
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
        hidden, whole = (stage_times(BlockTables(each, table)).reduce for each in (exposed, link))
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
    memory = stage_memory(BlockTables(asked, table))
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
    less = stage_memory(BlockTables(asked, again)).activations.max(axis=1)
    assert (less < stage_memory(BlockTables(asked, kept)).activations.max(axis=1))[deep].all()


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


DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SLACK = 1 + 1e-9
Question = tuple[Blocks, Candidates]


def steps(blocks: Blocks, table: Candidates, **changes: object) -> Floats:
    return estimate(again(blocks, **changes), table).step_seconds


@DRAWN
@given(questions(), st.integers(0, 1), st.floats(1, 100))
def test_better_links_never_take_longer(question: Question, tier: int, factor: float) -> None:
    """Of each tier alone: bandwidth, latency, less congestion, adding switches."""
    blocks, table = question
    slow, (before,) = blocks.cluster, (steps(blocks, table),)
    link = slow.tiers[tier]
    for better in (
        {"bandwidth_bytes_per_second": link.bandwidth_bytes_per_second * factor},
        {"latency_seconds": link.latency_seconds / factor},
        {"in_network_gain": factor},
    ):
        tiers = list(slow.tiers)
        tiers[tier] = link.replace(**better)
        quick = slow.replace(tiers=tuple(tiers))
        assert (steps(blocks, table, cluster=quick) <= before * SLACK).all(), better


@DRAWN
@given(questions(), st.floats(1, 100))
def test_a_better_device_never_takes_longer(question: Question, factor: float) -> None:
    blocks, table = question
    device = blocks.cluster.accelerator.replace(
        matmul_efficiency=0.01, attention_efficiency=0.01, memory_efficiency=0.01
    )
    before = steps(blocks, table, cluster=blocks.cluster.replace(accelerator=device))
    for better in (
        {"peak_flops": {"bf16": 1e14 * factor}},
        {"memory_bandwidth_bytes_per_second": 1e12 * factor},
        {"matmul_efficiency": 0.01 * factor},
        {"attention_efficiency": 0.01 * factor},
        {"memory_efficiency": 0.01 * factor},
        {"launch_seconds": device.launch_seconds / factor},
    ):
        quick = blocks.cluster.replace(accelerator=device.replace(**better))
        assert (steps(blocks, table, cluster=quick) <= before * SLACK).all(), better


@DRAWN
@given(questions(), st.floats(1, 10))
def test_a_busier_runtime_never_takes_less(question: Question, factor: float) -> None:
    blocks, table = question
    runtime = blocks.runtime.replace(
        overlap_slowdown=0.1, layer_host_seconds=1e-5, stage_floor_seconds=1e-5
    )
    before = steps(blocks, table, runtime=runtime)
    for worse in (
        {"layer_host_seconds": 1e-5 * factor},
        {"stage_floor_seconds": 1e-5 * factor},
        {"microbatch_seconds": runtime.microbatch_seconds + factor},
        {"step_seconds": runtime.step_seconds + factor},
        {"loss_passes": runtime.loss_passes * factor},
        {"overlap_slowdown": 0.1 * factor},
        {"gradient_dtype": "fp32"},
    ):
        slow = steps(blocks, table, runtime=runtime.replace(**worse))
        assert (slow >= before / SLACK).all(), worse


@DRAWN
@given(questions())
def test_recomputation_is_paid_in_time(question: Question) -> None:
    blocks, table = question
    none, selective, full = (
        steps(blocks, replaced(table, recompute=mode, recomputed=table.counts * (mode != "none")))
        for mode in ("none", "selective", "full")
    )
    assert (none <= selective * SLACK).all()
    assert (selective <= full * SLACK).all()


@DRAWN
@given(questions())
def test_every_microbatch_more_costs_a_stages_time(question: Question) -> None:
    """Which stage ends the step may change with their number, so between one and the slowest."""
    blocks, table = question
    once = estimate(blocks, table)
    twice = steps(blocks, replaced(table, microbatches=2 * table.microbatches))
    each, m = once.times.forward + once.times.backward, table.microbatches
    assert (twice >= (once.step_seconds + m * each.min(axis=1)) / SLACK).all()
    assert (twice >= 2 * m * each.max(axis=1) / SLACK).all()


@DRAWN
@given(questions(vpp=1), st.randoms(use_true_random=False))
def test_no_trait_lifts_the_bound_above_the_replay(question: Question, random: Random) -> None:
    blocks, table = question
    made, row = estimate(blocks, table), random.randrange(len(table))
    step = replay(blocks, table, made, row).step_seconds
    assert made.bound_seconds[row] <= step * SLACK
    assert made.bound_seconds[row] <= made.step_seconds[row] * SLACK


@DRAWN
@given(questions())
def test_a_table_is_its_rows(question: Question) -> None:
    blocks, table = question
    together = estimate(blocks, table)
    for row in range(len(table)):
        alone = estimate(blocks, table.take(np.array([row])))
        for name in ("step_seconds", "bound_seconds", "peak_bytes"):
            assert getattr(alone, name)[0] == getattr(together, name)[row], name


@DRAWN
@given(questions())
def test_a_row_is_its_plan(question: Question) -> None:
    """A plan made from a row costs what the row costs; chunks of a stage are added up."""
    blocks, table = question
    together = estimate(blocks, table)
    for row in range(len(table)):
        layout = table.layout(row)
        counts = table.layer_counts(row)
        chunks = tuple(
            count // layout.vpp + (chunk < count % layout.vpp)
            for chunk in range(layout.vpp)
            for count in counts
        )
        batch = layout.dp * layout.micro_batch * int(table.microbatches[row])
        alone = estimate(blocks, Candidates.of_plan(layout, make_stages(layout, chunks), batch))
        assert alone.step_seconds[0] == together.step_seconds[row]
        assert alone.peak_bytes[0] == together.peak_bytes[row]


@settings(EVERYTHING, max_examples=5)
@given(models, st.floats(1, 10))
def test_more_memory_never_makes_a_plan_infeasible(model, factor):  # type: ignore[no-untyped-def]
    cluster = gpu_cluster()
    tight = cluster.accelerator.replace(memory_bytes=2e6)
    roomy = tight.replace(memory_bytes=2e6 * factor)
    few, many = (
        tables_of(blocks(model, cluster.replace(accelerator=device)), "time")
        for device in (tight, roomy)
    )
    for before, after in zip(few, many, strict=True):
        fitted = np.isfinite(before.step_seconds)
        assert np.array_equal(before.peak_bytes, after.peak_bytes)
        assert np.array_equal(before.step_seconds[fitted], after.step_seconds[fitted])


def test_cores_are_shared_by_context_ranks_too() -> None:
    """On 2 cores, tp=2 cp=2 has four ranks to run and takes its work twice as long as on 4."""
    table = replaced(one_row(llama_like()), tp=np.array([2]), cp=2)
    from_two, from_four = (
        estimate(blocks(cluster=cpu_cluster(4, cores=cores)), table).step_seconds[0]
        for cores in (2, 4)
    )
    assert from_two == pytest.approx(2 * from_four, rel=1e-9)


def test_the_last_stage_reduces_while_the_others_drain() -> None:
    """Five of eight layers and the head on the last stage: its reduction ends the step, and begins
    three backwards before the pipeline is empty, as in the replay."""
    asked = blocks(wide(), gpu_cluster(), Workload(seq_len=64, global_batch=16))
    rows = one_row(asked.model)
    table = replaced(
        rows,
        pp=4,
        dp=2 * rows.dp,
        microbatches=8 * rows.microbatches,
        counts=np.array([[1, 1, 1, 5]]),
        recomputed=np.zeros((1, 4), np.int64),
    )
    found = estimate(asked, table)
    step = replay(asked, table, found, 0).step_seconds
    assert found.step_seconds[0] == pytest.approx(step, rel=1e-2)
    assert (found.times.reduce[0, :-1] < found.times.reduce[0, -1]).all()
