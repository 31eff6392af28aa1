"""Feed-forward parts: what software copies and adds around the products of experts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.graph import transformer
from planner.graph.operator import Operator
from planner.graph.view import RankView
from planner.spec.layer import MLP, Experts
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like

ADDED = ("pad", "unpad", "expert_bias")


def mixture(bias: bool) -> ModelSpec:
    model = llama_like()
    expert = MLP(ffn=64, gated=True, activation="silu", bias=bias)
    layer = model.layer.replace(feed_forward=Experts(experts=8, per_token=2, expert=expert))
    return model.replace(stacks=(model.main.replace(kinds=(layer,)),))


def added(model: ModelSpec, view: RankView) -> dict[str, Operator]:
    graph = transformer.layer_graph(model, view)
    return {op.kind: op for op in transformer.operators(graph) if op.kind in ADDED}


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from([1, 2, 4]))
def test_only_what_the_view_says_is_added_and_it_computes_nothing(
    bias: bool, pads: bool, fused: bool, ep: int
) -> None:
    view = RankView(2, 16, ep=ep, pads_experts=pads, fused_expert_bias=fused)
    found = added(mixture(bias), view)
    assert ("pad" in found, "unpad" in found) == (pads, pads)
    assert ("expert_bias" in found) == (bias and not fused)
    assert not any(op.forward_flops or op.parameters or op.saved_bytes for op in found.values())


def test_a_layer_without_experts_is_left_alone() -> None:
    assert not added(llama_like(), RankView(2, 16, pads_experts=True, fused_expert_bias=False))


@pytest.mark.parametrize(("dtype", "ahead", "behind"), [("bf16", 28, 40), ("fp32", 32, 48)])
def test_a_bias_of_its_own_moves_what_its_operations_read_and_write(
    dtype: str, ahead: int, behind: int
) -> None:
    """cat(t + b * p) and what autograd makes of it, p in fp32."""
    view = RankView(2, 16, dtype=dtype, fused_expert_bias=False)
    operator = added(mixture(bias=True), view)["expert_bias"]
    elements = 2 * 16 * 2 * mixture(bias=True).hidden
    assert operator.forward_bytes == ahead * elements
    assert operator.backward_bytes == behind * elements


def test_a_shared_expert_is_padded_with_what_it_gathers() -> None:
    view = RankView(2, 16, ep=2, pads_experts=True)
    one, two = (added(mixture(False), each)["pad"] for each in (view, replace(view, etp=2)))
    assert two.forward_bytes == 2 * one.forward_bytes


@pytest.mark.parametrize("gated", [True, False])
def test_quantised_products_keep_one_byte_of_an_element_of_their_inputs(gated: bool) -> None:
    """qkv, up and down keep one byte less, the projection behind attention one more."""
    model = llama_like() if gated else gpt2_like()
    layer, attention = model.layer, model.layer.attention
    assert isinstance(layer.feed_forward, MLP)
    saved = []
    for quantized in (False, True):
        graph = transformer.layer_graph(model, RankView(2, 16, quantized_inputs=quantized))
        saved.append(sum(op.saved_bytes for op in transformer.operators(graph)))
    inputs = 2 * model.hidden + layer.feed_forward.ffn - attention.output_width
    assert saved[0] - saved[1] == 2 * 16 * inputs
