"""Laws of the graph: shards add up to the whole, every view is a graph, counts are right."""

from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.graph import counts, inventory, recompute, transformer
from planner.graph.operator import Collective, Operator
from planner.graph.parts.attention import kernel_share
from planner.graph.view import RankView, cp_problem, ep_problem, tp_problem
from planner.spec.layer import Attention, Experts
from planner.spec.model import ModelSpec
from planner.spec.workload import Workload
from tests.examples import gpt2_like, llama_like
from tests.graph.models import decoders, models, translators
from tests.spec import formula


@given(models())
def test_parameters_equal_the_formula(model: ModelSpec) -> None:
    assert counts.parameters(model) == formula.parameters(model)
    whole = transformer.operators(transformer.model_graph(model, RankView(1, 8)))
    assert sum(operator.parameters for operator in whole) == formula.parameters(model)


@given(models())
def test_counts_equal_the_whole_graph(model: ModelSpec) -> None:
    """Counting each kind of layer once and multiplying is the same as building all layers."""
    view = RankView(2, 8)
    whole = transformer.operators(transformer.model_graph(model, view))
    assert counts.forward_flops(model, 2, 8) == sum(op.forward_flops for op in whole)
    assert counts.backward_flops(model, 2, 8) == sum(op.backward_flops for op in whole)
    assert 0 < counts.active_parameters(model) <= counts.parameters(model)


@given(
    models(),
    st.integers(1, 3),
    st.sampled_from([8, 16]),
    st.sampled_from([2, 4]),
    st.sampled_from([1, 2]),
    st.sampled_from(["ring", "all_to_all", "all_gather"]),
)
def test_flops_of_the_shards_sum_to_the_whole(
    model: ModelSpec, batch: int, seq: int, tp: int, cp: int, style: str
) -> None:
    """With sequence parallelism nothing is computed twice."""
    view = RankView(batch, seq, tp, cp=cp, cp_style=style)
    assume(not tp_problem(model, seq, tp, True) and not cp_problem(model, view))
    for stack, kind in dict.fromkeys(model.order):
        one = transformer.layer_graph(model, RankView(batch, seq), "layer.", stack, kind)
        shard = transformer.layer_graph(model, view, "layer.", stack, kind)
        for phase in ("forward", "backward"):
            whole, part = (
                sum(op.flops(phase) for op in transformer.operators(g)) for g in (one, shard)
            )
            assert tp * cp * part == whole


@given(decoders(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_experts_are_divided_and_their_work_is_not(model: ModelSpec, ep: int, etp: int) -> None:
    """Each of ep ranks brings tokens of its own and receives as many."""
    assume(not ep_problem(model, ep, etp))
    for kind in range(len(model.main.kinds)):
        one = transformer.layer_graph(model, RankView(2, 8), kind=kind)
        part = transformer.layer_graph(model, RankView(2, 8, ep=ep, etp=etp), kind=kind)
        weights = [
            sum(_weights(op) for op in transformer.operators(g) if op.expert) for g in (one, part)
        ]
        flops = [sum(op.forward_flops for op in transformer.operators(g)) for g in (one, part)]
        assert weights[0] == ep * etp * weights[1]
        assert flops[0] == flops[1]
        exchanges = [node for node in transformer.collectives(part) if node.axis in ("ep", "etp")]
        assert bool(exchanges) == (ep * etp > 1 and any(weights))


def _weights(operator: Operator) -> int:
    """Elements of the matrices of experts, without biases."""
    dims = dict(operator.dims)
    return dims["groups"] * dims["k"] * dims["n"]


@given(decoders(), st.sampled_from([2, 4]))
def test_parameters_of_the_shards_cover_the_whole(model: ModelSpec, tp: int) -> None:
    """Row-parallel biases are held by every rank, and experts by all tp ranks (etp = 1)."""
    assume(not tp_problem(model, 8, tp, True))
    for kind in range(len(model.main.kinds)):
        held = transformer.operators(transformer.layer_graph(model, RankView(1, 8, tp), kind=kind))
        split = sum(op.parameters for op in held if not (op.replicated or op.expert))
        copied = sum(op.parameters for op in held if op.replicated or op.expert)
        layer = model.main.kinds[kind]
        feed = layer.feed_forward
        mlp = feed.shared if isinstance(feed, Experts) else feed
        biases = model.hidden * (layer.attention.o_bias + (mlp is not None and mlp.bias))
        assert tp * split + copied - (tp - 1) * biases == counts.layer_parameters(model, 0, kind)


@given(models(), st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from(["train", "prefill"]))
def test_a_view_is_a_connected_acyclic_graph(
    model: ModelSpec, tp: int, sharded: bool, task: str
) -> None:
    assume(not tp_problem(model, 8, tp, sharded))
    graph = transformer.model_graph(model, RankView(2, 8, tp, sharded, task=task))
    assert nx.is_directed_acyclic_graph(graph)
    assert nx.is_weakly_connected(graph)
    names = [node.name for node in graph]
    assert len(names) == len(set(names))
    assert any(isinstance(node, Collective) for node in graph) == (tp > 1)


@given(translators())
def test_encoder_and_decoder_are_independent_until_the_cross_attention(model: ModelSpec) -> None:
    graph = transformer.model_graph(model, RankView(1, 8, source=4))
    nodes = {node.name: node for node in graph}
    first = next(n for name, n in nodes.items() if name.startswith("decoder.embedding"))
    end = nodes["encoder.output"]
    assert not nx.has_path(graph, end, first)
    assert not nx.has_path(graph, first, end)
    readers = {n.name.rpartition(".")[0] for n in graph.successors(end)}
    layers = range(len(model.main.order))
    assert readers == {f"decoder.layer{index}.cross_attention" for index in layers}


@given(models())
def test_serving_has_no_backward(model: ModelSpec) -> None:
    for view in (
        RankView(2, 8, 1, task="prefill"),
        RankView(2, 1, 1, task="decode", cached=7, source=8),
    ):
        graph = transformer.model_graph(model, view)
        for operator in transformer.operators(graph):
            assert operator.backward_flops == operator.saved_bytes == operator.backward_bytes == 0
        assert not transformer.collectives(graph, "backward")
        assert not any(node.name == "head.loss" for node in graph)


@given(decoders(), st.integers(1, 40))
def test_a_decoded_token_finds_the_cache_of_the_prompt(model: ModelSpec, cached: int) -> None:
    """After one more token the cache holds what a prompt of that length leaves."""
    decoded, prompt = (
        counts.total(model, view, lambda operator: operator.cache_bytes)
        for view in (
            RankView(2, 1, task="decode", cached=cached),
            RankView(2, cached + 1, task="prefill"),
        )
    )
    assert decoded == prompt > 0


@given(decoders(), st.integers(1, 40))
def test_decoding_computes_the_products_of_one_token(model: ModelSpec, cached: int) -> None:
    """All matrix products but the attention's and the head's grow with the tokens alone."""
    assume(all(kind.attention.latent is None for kind in model.main.kinds))

    def products(view: RankView) -> int:
        return counts.total(
            model,
            view,
            lambda op: op.forward_flops if op.kind in ("linear", "grouped_linear") else 0,
        )

    prompt = products(RankView(1, cached + 1, task="prefill"))
    one = products(RankView(1, 1, task="decode", cached=cached))
    last = _last_only(model)
    assert prompt - last == (cached + 1) * (one - last)


def _last_only(model: ModelSpec) -> int:
    """FLOPs of the projection to the vocabulary, of one token."""
    return 2 * (model.head.width or model.hidden) * model.head.classes


@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 30))
def test_the_kernel_share_counts_what_the_mask_leaves(seq: int, cached: int, window: int) -> None:
    attention = Attention(heads=1, kv_heads=1, head_dim=2, window=window)
    keys = cached + seq
    seen = sum(
        1
        for query in range(seq)
        for key in range(keys)
        if key <= cached + query and key > cached + query - window
    )
    assert kernel_share(attention, seq, keys) == pytest.approx(seen / (seq * min(window, keys)))
    assert kernel_share(attention.replace(causal=False), seq, keys) == 1.0


@given(decoders())
def test_recomputation_never_keeps_more(model: ModelSpec) -> None:
    view = RankView(2, 8, flash=False)
    inputs = recompute.input_bytes(model, view)
    for kind in range(len(model.main.kinds)):
        graph = transformer.layer_graph(model, view, kind=kind)
        none, selective, full = (
            recompute.saved_bytes(graph, mode, inputs, view)
            for mode in ("none", "selective", "full")
        )
        assert none > selective > full == inputs
        again = recompute.run_again(graph, "full", stops_early=True)
        assert set(again) < set(recompute.run_again(graph, "full", stops_early=False))
        cores = recompute.run_again(graph, "selective", stops_early=True)
        assert [node.name for node in cores] == ["layer.attention.core"]
        assert not recompute.run_again(graph, "none", stops_early=True)


def test_early_stop_skips_what_no_saved_tensor_needs() -> None:
    graph = transformer.layer_graph(llama_like(), RankView(2, 16, 4))
    again = {node.name for node in recompute.run_again(graph, "full", stops_early=True)}
    skipped = {node.name for node in graph} - again
    assert skipped == {
        "layer.mlp.down",
        "layer.mlp.scatter",
        "layer.mlp.scatter.backward",
        "layer.mlp.residual",
    }


def test_sequence_parallelism_moves_the_bytes_of_an_all_reduce() -> None:
    """Per layer and microbatch: 2 all-reduces each way, or 2 gathers and 2 scatters each way."""
    model = llama_like()
    for phase in ("forward", "backward"):
        plain, sharded = (
            transformer.collectives(transformer.layer_graph(model, RankView(2, 16, 4, sp)), phase)
            for sp in (False, True)
        )
        assert [node.op for node in plain] == ["all_reduce"] * 2
        assert sorted(node.op for node in sharded) == ["all_gather"] * 2 + ["reduce_scatter"] * 2
        assert {node.message_bytes for node in (*plain, *sharded)} == {2 * 16 * 32 * 2}


def test_saved_bytes_match_the_published_formula() -> None:
    """Korthikanti et al. 2022: 34*s*b*h per layer in 16 bits with two dropout masks (2*s*b*h),
    attention scores apart; ours has no dropout, so 32*s*b*h and the statistics in fp32."""
    model = gpt2_like(hidden=512, heads=8, kv_heads=8, head_dim=64, ffn=2048)
    view = RankView(2, 128)
    saved = sum(
        op.saved_bytes for op in transformer.operators(transformer.layer_graph(model, view))
    )
    assert saved == pytest.approx(32 * 2 * 128 * 512, rel=0.02)


def test_model_flops_follow_the_published_formula() -> None:
    """SC21: 72*B*s*L*h*h*(1 + s/6h + V/12Lh) without recomputation."""
    model = gpt2_like(hidden=256, heads=4, kv_heads=4, head_dim=64, ffn=1024, vocab=5000, layers=6)
    workload = Workload(seq_len=64, global_batch=8)
    h, s, n, v = 256, 64, 6, 5000
    expected = 72 * 8 * s * n * h * h * (1 + s / (6 * h) + v / (12 * n * h))
    assert counts.model_flops(model, workload) == pytest.approx(expected, rel=1e-12)


@given(models())
def test_the_inventory_is_distinct_and_complete(model: ModelSpec) -> None:
    found = inventory.requests(model, 32, [1, 2], [1, 2, 16], "fp32")
    keys = {(kind, tuple(sorted(dims.items()))) for kind, dims in found}
    assert len(keys) == len(found)
    whole = transformer.operators(transformer.model_graph(model, RankView(2, 32, dtype="fp32")))
    assert {(op.kind, op.dims) for op in whole} <= keys | {
        (op.kind, op.dims) for op in whole if op.name.startswith(("head.mtp", "encoder."))
    }


def test_the_inventory_of_a_decoder() -> None:
    kinds = {kind for kind, _ in inventory.requests(llama_like(), 32, [1, 2], [1, 2, 16], "fp32")}
    assert {"linear", "attention", "rmsnorm", "rotary", "gated_silu", "residual"} <= kinds
    assert {"embedding", "cross_entropy", "parallel_cross_entropy", "adamw"} <= kinds


def test_views_refuse_what_does_not_divide() -> None:
    model = llama_like()
    view = RankView(1, 32, cp=2)
    assert tp_problem(model, 32, 3, True) == "tp=3 does not divide heads=8; 2 and 4 do"
    assert tp_problem(model, 30, 4, True) == (
        "tp=4, with sequence parallelism, does not divide seq_len=30; 3 and 5 do"
    )
    assert cp_problem(model, replace(view, seq=31)) == (
        "cp=2 (with tp=1) does not divide seq_len=31; 1 and 31 do"
    )
    assert cp_problem(model, replace(view, cp=8, cp_style="all_to_all")) == (
        "cp=8 by all-to-all with tp=1 does not divide kv_heads=4; 4 does"
    )
    assert ep_problem(model, 2, 1) == "ep=2 etp=1 divide experts, and small-llama has none"
