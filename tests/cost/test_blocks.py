"""Laws of the blocks: what a layer, the embedding and the head cost on one rank."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cost.blocks import BlockCost, Blocks
from planner.cost.divisions import Division
from planner.spec.layout import Layout
from planner.spec.runtime import Axis, Runtime
from tests.cost.drawn import asked, questions, runtimes, wide, with_experts, with_traits
from tests.examples import gpu_cluster, llama_like, plain_runtime

DRAWN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SECONDS = (
    "forward",
    "backward",
    "again",
    "again_selective",
    "again_selective_tp",
    "forward_tp",
    "backward_tp",
    "again_tp",
)
SLACK = 1 + 1e-12


def layer(blocks: Blocks, **degrees: int) -> BlockCost:
    return blocks.cost(blocks.kinds[0], Division.of(Layout(**degrees)))


def whole(cost: BlockCost) -> dict[str, float]:
    """Compute and exchange together, by phase."""
    return {
        "forward": cost.forward + cost.forward_tp,
        "backward": cost.backward + cost.backward_tp,
        "again": cost.again + cost.again_tp,
    }


@DRAWN
@given(runtimes(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.floats(1, 100))
def test_more_bandwidth_is_never_slower(runtime: Runtime, tp: int, cp: int, factor: float) -> None:
    """Of every tier and of the memory."""
    cluster = gpu_cluster(nodes=8)
    slow = whole(layer(asked(wide(), cluster, runtime), tp=tp, cp=cp))
    tiers = list(cluster.tiers)
    for index, tier in enumerate(tiers):
        better = {"bandwidth_bytes_per_second": tier.bandwidth_bytes_per_second * factor}
        changed = [*tiers[:index], tier.replace(**better), *tiers[index + 1 :]]
        quick = whole(
            layer(asked(wide(), cluster.replace(tiers=tuple(changed)), runtime), tp=tp, cp=cp)
        )
        assert all(quick[phase] <= slow[phase] * SLACK for phase in slow)
    device = cluster.accelerator.replace(memory_bandwidth_bytes_per_second=1e12 * factor)
    quick = whole(layer(asked(wide(), cluster.replace(accelerator=device), runtime), tp=tp, cp=cp))
    assert all(quick[phase] <= slow[phase] * SLACK for phase in slow)


def test_no_product_in_fp4_runs_beside_its_exchange() -> None:
    peaks = dict.fromkeys(("bf16", "fp8", "fp4"), "100TFLOP/s")
    blocks = asked(wide(), gpu_cluster(nodes=8, peak_flops=peaks), plain_runtime())
    for dtype, hides in (("fp8", True), ("fp4", False)):
        chosen = blocks.changed(workload=blocks.workload.replace(dtype=dtype))
        apart, beside = (layer(with_traits(chosen, overlaps_tp=on), tp=4) for on in (False, True))
        assert (beside.forward_tp < apart.forward_tp) == hides


@DRAWN
@given(runtimes(overlap_slowdown=0.0), st.sampled_from([2, 4, 8]), st.sampled_from([1, 2]))
def test_tokens_dealt_out_beside_another_microbatch_cost_less(
    runtime: Runtime, ep: int, tp: int
) -> None:
    """And never less than compute alone; what hides slows it."""
    blocks = asked(with_experts(wide()), gpu_cluster(nodes=8), runtime)
    apart, beside = (
        layer(with_traits(blocks, overlaps_experts=on), tp=tp, dp=8, ep=ep) for on in (False, True)
    )
    for phase in ("forward", "backward", "again"):
        assert getattr(beside, phase + "_tp") <= getattr(apart, phase + "_tp") * SLACK
        assert getattr(beside, phase) >= getattr(apart, phase) / SLACK
        assert whole(beside)[phase] <= whole(apart)[phase] * SLACK
    assert beside.forward_tp < apart.forward_tp


@DRAWN
@given(runtimes(layer_host_seconds=0.0), st.sampled_from([2, 4, 8]))
def test_hidden_and_exposed_exchange_are_all_of_it(runtime: Runtime, tp: int) -> None:
    blocks = asked(wide(), gpu_cluster(nodes=8), runtime)
    apart, beside = (
        layer(with_traits(blocks, overlaps_tp=on, overlap_slowdown=s), tp=tp)
        for on, s in ((False, 0.0), (True, 0.0))
    )
    slowed = layer(with_traits(blocks, overlaps_tp=True, overlap_slowdown=0.3), tp=tp)
    for phase in ("forward", "backward", "again"):
        link, exposed = getattr(apart, phase + "_tp"), getattr(beside, phase + "_tp")
        hidden = link - exposed
        assert link / tp / SLACK <= exposed <= link * SLACK
        assert hidden <= getattr(apart, phase) * SLACK
        assert getattr(beside, phase) == pytest.approx(getattr(apart, phase), rel=1e-12)
        assert getattr(slowed, phase) == pytest.approx(getattr(apart, phase) + 0.3 * hidden)


@DRAWN
@given(runtimes(layer_host_seconds=0.0), st.sampled_from([2, 4, 8]), st.sampled_from([1, 64]))
def test_a_backward_hides_exchange_behind_the_gradients_of_what_tp_enters(
    runtime: Runtime, tp: int, batch: int
) -> None:
    """Never more than either, and nothing of a forward."""
    blocks = asked(wide(), gpu_cluster(nodes=8), runtime)
    apart, beside = (
        layer(
            with_traits(blocks, overlaps_tp=False, overlaps_tp_backward=on, overlap_slowdown=0.0),
            tp=tp,
            micro_batch=batch,
        )
        for on in (False, True)
    )
    hidden = apart.backward_tp - beside.backward_tp
    assert 0 < hidden <= min(apart.backward_tp, apart.backward) * SLACK
    assert beside.backward == pytest.approx(apart.backward, rel=1e-12)
    assert (beside.forward, beside.forward_tp) == (apart.forward, apart.forward_tp)


def test_a_host_does_not_wait_for_the_network() -> None:
    """What leaves the node takes the device longer, not a host that is slower than the device."""
    runtime, cluster = plain_runtime(layer_host_seconds=10.0), gpu_cluster(nodes=8)
    inside, network = cluster.tiers
    near, far = (
        layer(
            asked(
                wide(),
                cluster.replace(tiers=(inside, network.replace(latency_seconds=seconds))),
                runtime,
            ),
            tp=16,
        )
        for seconds in (1e-5, 1e-3)
    )
    assert far.backward_tp > near.backward_tp
    assert sum(whole(far).values()) == pytest.approx(sum(whole(near).values()), rel=1e-6)


@DRAWN
@given(runtimes(), st.sampled_from([1, 2, 4]), st.floats(1e-6, 1e-1))
def test_a_layer_takes_at_least_what_its_host_needs(runtime: Runtime, tp: int, host: float) -> None:
    """And no more than both together: the corner between them is round."""
    blocks = asked(wide(), gpu_cluster(nodes=8), runtime)
    free, held = (
        whole(layer(with_traits(blocks, layer_host_seconds=h), tp=tp)) for h in (0.0, host)
    )
    bare = whole(layer(with_traits(blocks, layer_host_seconds=1e-30), tp=tp))
    for phase, share in (("forward", 1 / 3), ("backward", 2 / 3), ("again", 1 / 3)):
        assert held[phase] >= max(free[phase], host * share) / SLACK
        assert held[phase] <= (bare[phase] + host * share) * SLACK


@DRAWN
@given(questions())
def test_nothing_takes_negative_time_or_memory(question) -> None:  # type: ignore[no-untyped-def]
    blocks, table = question
    for row in range(len(table)):
        division = Division.of(table.layout(row))
        for block in (*blocks.kinds, "embedding", "head"):
            cost = blocks.cost(block, division)
            kept = ("saved_bytes", "selective_bytes", "checkpoint_bytes", "widest_bytes")
            assert all(getattr(cost, name) >= -1e-12 for name in (*SECONDS, *kept))
            assert cost.selective_bytes <= cost.saved_bytes
            assert cost.again <= cost.forward + 1e-12


@given(st.permutations(["tp", "cp", "dp", "pp"]))
def test_inside_one_node_the_order_of_the_axes_does_not_matter(order: list[Axis]) -> None:
    blocks = asked(wide(), gpu_cluster(), plain_runtime())
    layout = Layout(tp=2, cp=2, dp=2)
    usual = blocks.cost(blocks.kinds[0], Division.of(layout))
    other = Division.of(layout.replace(axis_order=(*order, "ep")))
    assert blocks.cost(blocks.kinds[0], other) == usual


def test_the_outer_axis_pays_for_leaving_the_node() -> None:
    """tp=8 beside cp=2 on two nodes: whoever is inner stays inside."""
    blocks = asked(wide(), gpu_cluster(nodes=2), plain_runtime())
    layout = Layout(tp=8, cp=2)
    inner, outer = (
        blocks.cost(blocks.kinds[0], Division.of(layout.replace(axis_order=order)))
        for order in (("tp", "cp", "ep", "dp", "pp"), ("cp", "tp", "ep", "dp", "pp"))
    )
    assert outer.forward_tp > 2 * inner.forward_tp


@DRAWN
@given(runtimes(), st.sampled_from([1, 2, 4]))
def test_context_ranks_exchange_keys_only_among_several(runtime: Runtime, tp: int) -> None:
    blocks = asked(wide(), gpu_cluster(nodes=8), runtime)
    alone, ring = (
        layer(with_traits(blocks, overlaps_tp=False, layer_host_seconds=0.0), tp=tp, cp=cp)
        for cp in (1, 2)
    )
    assert tp > 1 or alone.forward_tp == 0
    assert tp > 1 or ring.forward_tp > 0


@DRAWN
@given(runtimes(), st.sampled_from([2, 4]))
def test_gathering_again_takes_longer_and_keeps_less(runtime: Runtime, tp: int) -> None:
    blocks = with_traits(
        asked(wide(), gpu_cluster(nodes=8), runtime), sequence_parallel=True, overlaps_tp=False
    )
    kept, again = (
        layer(with_traits(blocks, keeps_gathered_inputs=on), tp=tp) for on in (True, False)
    )
    assert again.backward_tp > kept.backward_tp
    assert again.saved_bytes < kept.saved_bytes


@DRAWN
@given(runtimes(selective="core"), st.sampled_from([1, 2, 4]), st.sampled_from([4, 16]))
def test_copied_keys_and_values_are_kept_twice(runtime: Runtime, tp: int, keys: int) -> None:
    model = llama_like(hidden=1024, heads=16, kv_heads=keys, head_dim=64, ffn=4096)
    blocks = asked(model, gpu_cluster(nodes=8), runtime)
    without, copied = (
        layer(with_traits(blocks, copies_keys_values=on), tp=tp) for on in (False, True)
    )
    tokens, own = blocks.workload.seq_len, keys == 16
    more = own * 2 * tokens * 1024 // tp * blocks.element_bytes * runtime.activation_scale
    assert copied.saved_bytes - without.saved_bytes == pytest.approx(more)
    assert copied.selective_bytes - without.selective_bytes == pytest.approx(more)
    assert copied.checkpoint_bytes == without.checkpoint_bytes
    assert (copied.forward, copied.backward) == (without.forward, without.backward)


@DRAWN
@given(runtimes(flash_attention=False, selective="core"), st.sampled_from([1, 2, 4]))
def test_selective_recomputation_runs_a_part_of_the_layer_again(runtime: Runtime, tp: int) -> None:
    cost = layer(asked(wide(), gpu_cluster(nodes=8), runtime), tp=tp)
    assert 0 < cost.again_selective < cost.forward


@DRAWN
@given(runtimes(selective="products"), st.sampled_from([1, 2, 4]))
def test_keeping_products_is_between_nothing_and_the_whole_layer(runtime: Runtime, tp: int) -> None:
    cost = layer(asked(wide(), gpu_cluster(nodes=8), runtime), tp=tp)
    assert cost.checkpoint_bytes < cost.selective_bytes < cost.saved_bytes
    selective = cost.again_selective + cost.again_selective_tp
    assert 0 < selective <= (cost.again + cost.again_tp) * SLACK


@DRAWN
@given(runtimes(), st.sampled_from([1, 2, 4]), st.floats(1e-5, 1e-2))
def test_a_host_launches_every_expert_that_its_rank_holds(
    runtime: Runtime, ep: int, host: float
) -> None:
    """A layer of E / ep experts takes at least as long as its host, and a dense one as before."""
    cluster, dense = gpu_cluster(nodes=8), wide()
    for model in (dense, with_experts(dense)):
        blocks = asked(model, cluster, runtime.replace(layer_host_seconds=0.0))
        free, busy = (
            whole(layer(with_traits(blocks, expert_host_seconds=each), ep=ep, dp=ep))
            for each in (0.0, host)
        )
        for phase, share in (("forward", 1 / 3), ("backward", 2 / 3), ("again", 1 / 3)):
            held = 0 if model is dense else 8 // ep
            assert busy[phase] >= max(free[phase], held * host * share) / SLACK
            assert held or busy[phase] == free[phase]


def test_rows_of_experts_are_padded_where_products_are_in_fewer_bits_only() -> None:
    def forward(dtype: str, pads: bool) -> float:
        cluster = gpu_cluster(nodes=1, peak_flops={"bf16": 1e14, "fp8": 2e14})
        blocks = asked(with_experts(wide()), cluster, plain_runtime(pads_experts=pads))
        return layer(blocks.changed(workload=blocks.workload.replace(dtype=dtype)), dp=8).forward

    assert forward("bf16", True) == forward("bf16", False)
    assert forward("fp8", True) > forward("fp8", False)
