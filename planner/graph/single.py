"""Single: one operator from the kind and dims that a profile's sample names.

The same FLOPs and bytes as in a model's graph (tests hold the two together). Bare products
(`matmul_nt`, `matmul_nn`, `matmul_tn`) are linear operators without a backward; `attention_math`
is attention that stores its scores.
"""

from planner.graph.operator import Operator
from planner.graph.parts import elements
from planner.graph.parts.attention import core_operator
from planner.graph.view import RankView
from planner.spec.layer import MLP, Attention

READS = {"rmsnorm": (1, 1), "layernorm": (1, 1), "residual": (2, 0)}
"""Operands read, and operands of the backward besides its gradients."""

ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")
LOSSES = ("cross_entropy", "parallel_cross_entropy")


def single_operator(kind: str, dims: dict[str, int], dtype: str) -> Operator | None:
    """The operator, None for kinds that no arithmetic or memory bounds in a known way."""
    view = RankView(dims.get("batch", 1), dims.get("seq", 1), dtype=dtype)
    if kind.startswith("matmul_"):
        return elements.linear(view, kind, dims["m"], dims["k"], dims["n"])
    if kind == "linear":
        sizes = dims["m"], dims["k"], dims["n"]
        return elements.linear(view, kind, *sizes, bias=bool(dims.get("bias")))
    if kind in ("attention", "attention_math"):
        return _attention(dims, dtype, flash=kind == "attention")
    if kind in READS:
        reads, saved = READS[kind]
        rows, width = dims["rows"], dims["width"]
        return elements.elementwise(view, kind, kind, rows, width, reads=reads, saved=saved)
    if kind in LOSSES:
        return elements.elementwise(view, kind, kind, dims["rows"], dims["vocab"])
    if kind.removeprefix("gated_") in ACTIVATIONS:
        return _activation(view, kind, dims)
    return None


def _attention(dims: dict[str, int], dtype: str, flash: bool) -> Operator:
    view = RankView(dims["batch"], dims["seq"], flash=flash, dtype=dtype)
    heads, groups = dims["heads"], dims["kv_heads"]
    of = Attention(heads=heads, kv_heads=groups, head_dim=dims["head_dim"])
    return core_operator(view, of, "core", dims["seq"], dims["seq"], heads, groups)


def _activation(view: RankView, kind: str, dims: dict[str, int]) -> Operator:
    gated, name = kind.startswith("gated_"), kind.removeprefix("gated_")
    mlp = MLP.model_validate({"ffn": dims["width"], "gated": gated, "activation": name})
    return elements.activation(view, kind, mlp, dims["rows"], dims["width"])
