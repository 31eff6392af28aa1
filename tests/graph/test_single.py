"""A sample's operator is the graph's: same FLOPs, same bytes."""

import pytest

from planner.graph import transformer
from planner.graph.single import single_operator
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like

BOUNDED = ("forward_flops", "backward_flops", "kernel_share", "forward_bytes", "backward_bytes")


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("model", [gpt2_like(), llama_like()], ids=["gpt2", "llama"])
def test_it_is_the_graphs_operator(model: ModelSpec, flash: bool, tp: int) -> None:
    view = RankView(2, 8, tp=tp, flash=flash, dtype="bf16")
    seen = set()
    for operator in transformer.operators(transformer.model_graph(model, view)):
        stored = operator.kind == "attention" and not flash
        made = single_operator(operator.kind + "_math" * stored, dict(operator.dims), "bf16")
        if made is None:
            continue
        seen.add(operator.kind)
        for name in BOUNDED:
            assert getattr(made, name) == getattr(operator, name), (operator.kind, name)
    assert {"linear", "attention", "residual", model.norm} <= seen
    assert {"cross_entropy", "parallel_cross_entropy"} & seen


def test_bare_products_are_linear_and_the_unknown_is_none() -> None:
    dims = {"m": 3, "n": 4, "k": 5}
    made = single_operator("matmul_tn", dims, "fp32")
    assert made is not None
    assert (made.kind, made.forward_flops, made.forward_bytes) == ("linear", 120, 4 * 47)
    assert single_operator("adamw", {"parameters": 3}, "fp32") is None
