"""Laws of stage times: degrees of one cost nothing, overlap hides and never invents."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.stages import StageTimes, served_parameters, stage_parameters, stage_times
from planner.spec.cluster import ClusterSpec
from planner.spec.model import ModelSpec
from planner.spec.runtime import Runtime
from tests.cost.drawn import (
    again,
    asked,
    models,
    one_row,
    questions,
    replaced,
    runtimes,
    tables,
    wide,
    with_experts,
    with_traits,
)
from tests.examples import gpu_cluster, llama_like, plain_runtime

DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Question = tuple[Blocks, Candidates]
SLACK = 1 + 1e-9


def times_of(blocks: Blocks, table: Candidates) -> StageTimes:
    return stage_times(BlockTables(blocks, table))


@DRAWN
@given(questions(dp=1, cp=1, tp=1))
def test_one_replica_has_no_data_parallel_time(question: Question) -> None:
    """What is left of the reduction is the sum of tied embeddings, between stages."""
    blocks, table = question
    times = times_of(blocks, table)
    tied = table.pp > 1 and blocks.model.tied_embeddings
    assert tied or (times.reduce == 0).all()
    assert (times.reduce[:, 1:-1] == 0).all()
    for zero in (1, 2, 3):
        sharded = times_of(blocks, replaced(table, zero=0 * table.zero + zero))
        for name in ("forward", "backward", "reduce", "optimizer"):
            assert np.array_equal(getattr(sharded, name), getattr(times, name)), name


@DRAWN
@given(questions(tp=1, cp=1))
def test_one_tensor_parallel_rank_exchanges_nothing(question: Question) -> None:
    times = times_of(*question)
    assert (times.forward_tp == 0).all()
    assert (times.backward_tp == 0).all()


@DRAWN
@given(questions(pp=1))
def test_one_stage_passes_nothing_on(question: Question) -> None:
    assert (times_of(*question).hop == 0).all()


@DRAWN
@given(questions(), st.sampled_from(["overlaps_dp", "overlaps_tp", "prefetches_parameters"]))
def test_overlap_without_slowdown_is_never_slower(question: Question, trait: str) -> None:
    blocks, table = question
    apart, beside = (
        times_of(with_traits(blocks, overlap_slowdown=0.0, **{trait: on}), table)
        for on in (False, True)
    )
    for name in ("forward", "backward", "optimizer"):
        assert (getattr(beside, name) <= getattr(apart, name) * SLACK).all(), name
    # a shorter backward hides less of the reduction, but the sum is never longer
    ends = [each.backward + each.reduce for each in (beside, apart)]
    assert (ends[0] <= ends[1] * SLACK).all()


@DRAWN
@given(questions(), st.sampled_from(["overlaps_tp", "prefetches_parameters"]), st.floats(0, 1))
def test_a_slowdown_costs_at_most_the_time_that_was_hidden(
    question: Question, trait: str, slowdown: float
) -> None:
    """Computing beside communication takes at most (1 + slowdown) times as long, and never more
    than both one after the other."""
    blocks, table = question
    others = dict.fromkeys(("overlaps_tp", "prefetches_parameters"), False)
    apart = times_of(with_traits(blocks, **(others | {"overlap_slowdown": slowdown})), table)
    free, slowed = (
        times_of(with_traits(blocks, **(others | {trait: True, "overlap_slowdown": s})), table)
        for s in (0.0, slowdown)
    )
    for name in ("forward", "backward"):
        low, high, whole = (getattr(each, name) for each in (free, slowed, apart))
        assert (low <= high * SLACK).all()
        assert (high <= low * (1 + slowdown) * SLACK).all()
        assert (high <= whole * SLACK).all()


@DRAWN
@given(questions())
def test_exposed_reduction_is_at_most_the_link_time_and_at_least_one_bucket(
    question: Question,
) -> None:
    blocks, table = question
    whole, exposed = (times_of(with_traits(blocks, overlaps_dp=on), table) for on in (False, True))
    assert (exposed.reduce <= whole.reduce * SLACK).all()
    hidden = whole.reduce - exposed.reduce
    assert (hidden <= whole.backward * SLACK).all()
    buckets = np.maximum(table.counts, 1)
    assert (exposed.reduce >= whole.reduce / buckets / SLACK).all()


@DRAWN
@given(questions(zero=3))
def test_prefetched_weights_are_exposed_at_most_for_their_link_time(question: Question) -> None:
    blocks, table = question
    plain = {"overlap_slowdown": 0.0}
    none = times_of(with_traits(blocks, **plain), replaced(table, zero=0 * table.zero))
    whole, beside = (
        times_of(with_traits(blocks, prefetches_parameters=on, **plain), table)
        for on in (False, True)
    )
    for name in ("forward", "backward"):
        compute, link, exposed = (getattr(each, name) for each in (none, whole, beside))
        sent, left = link - compute, exposed - compute
        assert (left <= sent * SLACK + 1e-12).all()
        assert (sent - left <= compute * SLACK).all()


@DRAWN
@given(questions())
def test_every_zero_stage_adds_its_own_communication(question: Question) -> None:
    """ZeRO 0 and 1 per step; 2 scatters in every backward; 3 gathers in both directions too."""
    blocks, table = question
    zero, one, two, three = (
        times_of(blocks, replaced(table, zero=0 * table.zero + z)) for z in range(4)
    )
    assert np.array_equal(zero.forward, one.forward)
    assert np.array_equal(zero.backward, one.backward)
    assert np.array_equal(two.forward, one.forward)
    assert (two.backward >= one.backward).all()
    assert (three.backward >= two.backward).all()
    assert (three.forward >= two.forward).all()
    assert (three.reduce <= one.reduce * SLACK).all()


def instant_links() -> ClusterSpec:
    cluster = gpu_cluster(nodes=8)
    fast = {"bandwidth_bytes_per_second": 1e18, "latency_seconds": 0.0}
    return cluster.replace(tiers=tuple(tier.replace(**fast) for tier in cluster.tiers))


@DRAWN
@given(models(), runtimes(stage_floor_seconds=0.0, microbatch_seconds=0.0), st.data())
def test_twice_the_layers_take_twice_the_time_of_the_layers(
    model: ModelSpec, runtime: Runtime, data: st.DataObject
) -> None:
    table = data.draw(tables(model, zero=0, vpp=1))
    blocks = asked(model, gpu_cluster(nodes=8), runtime)
    double = model.replace(stacks=(model.main.replace(order=model.main.order * 2),))
    times = []
    for each, factor in ((model, 0), (model, 1), (double, 2)):
        counts = replaced(table, counts=table.counts * factor, recomputed=table.recomputed * factor)
        times.append(times_of(again(blocks, model=each), counts))
    ends, once, twice = times
    for name in ("forward", "backward", "forward_tp", "backward_tp"):
        layers = getattr(once, name) - getattr(ends, name)
        assert getattr(twice, name) == pytest.approx(getattr(ends, name) + 2 * layers, rel=1e-9)


@DRAWN
@given(questions(cp=1, tp=1))
def test_context_ranks_divide_the_rows(question: Question) -> None:
    """Twice the ranks of a context compute half, but for launches and what they exchange."""
    blocks, table = question
    device = blocks.cluster.accelerator.replace(launch_seconds=0.0)
    runtime = blocks.runtime.replace(
        layer_host_seconds=0.0, microbatch_seconds=0.0, stage_floor_seconds=0.0
    )
    blocks = again(blocks, cluster=instant_links().replace(accelerator=device), runtime=runtime)
    whole, half = (times_of(blocks, replaced(table, cp=cp, zero=0 * table.zero)) for cp in (1, 2))
    assert (half.forward <= whole.forward * SLACK).all()
    assert (half.forward >= whole.forward / 2 / SLACK).all()


@DRAWN
@given(questions())
def test_a_table_is_its_rows(question: Question) -> None:
    blocks, table = question
    together = times_of(blocks, table)
    for row in range(len(table)):
        alone = times_of(blocks, table.take(np.array([row])))
        for name in StageTimes.__dataclass_fields__:
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[row]), name


def test_replicas_across_nodes_share_the_cards_that_tensor_parallelism_leaves() -> None:
    """tp=8, dp=8: each rank's gradients leave through its own 10 GB/s; dp=64: all through 80."""
    blocks = asked(wide(), gpu_cluster(nodes=8), plain_runtime(sequence_parallel=False))
    for dp, tp, rate in ((8, 8, 10e9), (64, 1, 80e9)):
        table = replaced(one_row(blocks.model), dp=np.array([dp]), tp=np.array([tp]))
        times = times_of(blocks, table)
        size = float(times.parameters[0, 0]) * 4
        ring = 2 * (dp - 1) * 1e-5 + 2 * (dp - 1) / dp * size / rate
        tree = 2 * (np.log2(8 // tp) * 4e-6 + 3 * 1e-5) + 2 * size / rate
        assert float(times.reduce[0, 0]) == pytest.approx(min(ring, tree), rel=1e-9)


@pytest.mark.parametrize(("dp", "tp", "each"), [(1, 2, 1.0), (16, 1, 1.5), (16, 8, 5.0)])
def test_a_layer_across_nodes_takes_its_launches_and_so_much_for_every_rank_of_tp(
    dp: int, tp: int, each: float
) -> None:
    runtime = plain_runtime(layer_host_seconds=1.0, stage_floor_seconds=0.5)
    blocks = asked(wide(), gpu_cluster(nodes=32), runtime)
    half = blocks.model.layers // 2
    counts = np.array([[half, half]])
    split = {"pp": 2, "counts": counts, "recomputed": 0 * counts}
    table = replaced(one_row(blocks.model), dp=np.array([dp]), tp=np.array([tp]), **split)
    times = times_of(blocks, table)
    assert (times.forward + times.backward).max() == pytest.approx(half * each, rel=0.01)


@pytest.mark.parametrize("zero", [2, 3])
def test_sharded_layers_pay_the_latency_of_every_layer(zero: int) -> None:
    """dp=64, 8 layers: 8 reduce-scatters and, in ZeRO 3, twice 8 all-gathers of 63 steps each."""
    blocks = asked(llama_like(layers=8), gpu_cluster(nodes=8), plain_runtime())
    rows = one_row(blocks.model)
    whole, cut = (
        times_of(blocks, replaced(rows, dp=64 * rows.dp, zero=np.array([z]))) for z in (0, zero)
    )
    steps = 63 * 8 * 1e-5
    backward = float(cut.backward[0, 0] - whole.backward[0, 0])
    forward = float(cut.forward[0, 0] - whole.forward[0, 0])
    assert backward == pytest.approx((zero - 1) * steps, rel=0.01)
    assert forward == pytest.approx((zero - 2) * steps, rel=0.01)


@DRAWN
@given(questions(cp=1), st.floats(0, 1))
def test_a_hidden_reduction_slows_the_backward_it_hides_behind(
    question: Question, slowdown: float
) -> None:
    blocks, table = question
    whole = times_of(with_traits(blocks, overlaps_dp=False, overlap_slowdown=0.0), table).reduce
    free, slowed = (
        times_of(
            with_traits(blocks, overlaps_dp=True, overlaps_tp=False, overlap_slowdown=s), table
        ).reduce
        for s in (0.0, slowdown)
    )
    if not (table.zero > 1).any():
        assert slowed == pytest.approx(free + slowdown * (whole - free), rel=1e-9, abs=1e-15)
    assert (slowed <= whole * SLACK).all()


@DRAWN
@given(questions(dp=2, cp=1, pp=1))
def test_context_ranks_hold_copies_as_replicas_do(question: Question) -> None:
    """cp=2 reduces and updates what dp=2 does."""
    blocks, table = question
    blocks = with_traits(blocks, overlaps_dp=False)
    replicas = times_of(blocks, table)
    context = times_of(blocks, replaced(table, dp=table.dp // 2, cp=2))
    assert context.reduce == pytest.approx(replicas.reduce, rel=1e-12)
    assert context.optimizer == pytest.approx(replicas.optimizer, rel=1e-12)


@pytest.mark.parametrize(("tp", "ep", "copies"), [(1, 2, 4), (1, 8, 1), (2, 4, 4), (2, 1, 16)])
def test_experts_are_reduced_by_the_ranks_that_have_copies(tp: int, ep: int, copies: int) -> None:
    """dp=8: the dense weights over 8 ranks, the experts over 8*tp/ep, at ZeRO 1 by rings."""
    model = with_experts(wide())
    runtime = plain_runtime(sequence_parallel=True)
    blocks = asked(model, gpu_cluster(nodes=1, per_node=16), runtime)
    rows = one_row(model)
    table = replaced(rows, dp=8 * rows.dp, tp=tp * rows.tp, zero=1 + rows.zero, ep=ep)
    held = stage_parameters(BlockTables(blocks, table))

    def ring(ranks: int, size: float, factor: int = 1) -> float:
        return factor * ((ranks - 1) * 4e-6 + (ranks - 1) / ranks * size / 100e9)

    dense, experts = 4 * float(held.dense[0, 0]), 4 * float(held.experts[0, 0])
    expected = ring(8, dense) + ring(copies, experts)
    expected += ring(tp, 4 * float(held.replicated[0, 0]), 2)
    assert float(times_of(blocks, table).reduce[0, 0]) == pytest.approx(expected, rel=1e-9)


def test_stages_that_fill_a_node_in_pairs_pass_through_the_network() -> None:
    """4 stages of 4 ranks on nodes of 8: the slow hop in the middle is the hop."""
    blocks = asked(wide(), gpu_cluster(nodes=2), plain_runtime())
    rows = one_row(blocks.model)
    table = replaced(
        rows, pp=4, tp=4 * rows.tp, counts=np.full((1, 4), 2), recomputed=np.zeros((1, 4), np.int64)
    )
    sent = 64 // 4 * 1024 * 2
    assert times_of(blocks, table).hop[0] == pytest.approx(1e-5 + sent / 10e9)


@DRAWN
@given(questions(), st.sampled_from([2, 4]))
def test_new_weights_are_gathered_where_only_the_optimizer_is_sharded(
    question: Question, dp: int
) -> None:
    """ZeRO 1 and 2 gather after the update; 0 has them, 3 gathers before it uses them."""
    blocks, table = question
    table = replaced(table, dp=0 * table.dp + dp)
    real, instant = (
        [
            times_of(again(blocks, cluster=cluster), replaced(table, zero=0 * table.zero + z))
            for z in range(4)
        ]
        for cluster in (blocks.cluster, instant_links())
    )
    exchanged = [one.optimizer - other.optimizer for one, other in zip(real, instant, strict=True)]
    assert exchanged[0] == pytest.approx(exchanged[3], rel=1e-9, abs=1e-12)  # the norm only
    assert exchanged[1] == pytest.approx(exchanged[2], rel=1e-9, abs=1e-12)
    assert (exchanged[1] > exchanged[0]).all()


@pytest.mark.parametrize("dp", [2, 3, 8])
def test_a_server_takes_the_gradients_of_all_others_one_after_the_other(dp: int) -> None:
    """d-1 messages of its share in, and as many with weights out, on the one link that it has."""
    blocks = asked(wide(), gpu_cluster(nodes=dp, per_node=1), plain_runtime())
    rows = one_row(blocks.model)
    table = replaced(rows, dp=dp * rows.dp, sync=1 + rows.sync)
    tables_of = BlockTables(blocks, table)
    held = stage_parameters(tables_of)
    share = float(served_parameters(tables_of, held)[0, 0])
    assert float(held.all[0, 0]) / dp <= share <= float(held.all[0, 0])
    times, whole = times_of(blocks, table), times_of(blocks, replaced(table, sync=0 * table.sync))
    assert float(times.reduce[0, 0]) == pytest.approx((dp - 1) * (1e-5 + share * 4 / 10e9))
    there = again(blocks, cluster=instant_links())
    exchanged = [
        float((times_of(at, row).optimizer)[0, 0])
        for at in (blocks, there)
        for row in (table, replaced(table, sync=0 * table.sync))
    ]
    pulled = (exchanged[0] - exchanged[2]) - (exchanged[1] - exchanged[3])
    assert pulled == pytest.approx((dp - 1) * (1e-5 + share * 2 / 10e9), rel=1e-6)
    assert float(whole.reduce[0, 0]) == pytest.approx(
        2 * (dp - 1) * (1e-5 + float(held.all[0, 0]) / dp * 4 / 10e9)
    )
