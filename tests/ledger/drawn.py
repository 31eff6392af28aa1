"""Drawn: small models and the views of them that a layout allows, for the ledger."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from planner.graph.view import RankView
from planner.spec.layer import LayerSpec
from planner.spec.model import ModelSpec
from tests.examples import llama_like

SMALL = st.integers(1, 3)


@dataclass(frozen=True)
class Case:
    """A model whose main stack has one kind of layer, a view of it, and one of the ranks."""

    model: ModelSpec
    view: RankView
    rank: int

    @property
    def degrees(self) -> dict[str, int]:
        view = self.view
        return {"tp": view.tp, "cp": view.cp, "ep": view.ep, "etp": view.etp}

    @property
    def kind(self) -> LayerSpec:
        return self.model.main.kinds[0]


@st.composite
def tensor_parallel(draw: Any, sequence_parallel: bool) -> Case:
    """tp alone, over layers of every form."""
    tp = draw(st.sampled_from((2, 4, 8)))
    form = draw(st.sampled_from(("plain", "parallel", "post", "sandwich", "latent", "cross")))
    heads = _attention(draw, tp)
    attention = {**heads, **_latent(draw, heads)} if form == "latent" else heads
    kind = {
        "attention": attention,
        "feed_forward": _mlp(draw, tp),
        "placement": form if form in ("post", "sandwich") else "pre",
        "parallel": form == "parallel",
        "cross_attention": _attention(draw, tp) | {"causal": False, "qk_norm": False}
        if form == "cross"
        else None,
    }
    source = tp * draw(SMALL) if form == "cross" else None
    view = RankView(
        batch=draw(SMALL),
        seq=tp * draw(SMALL),
        source=source,
        tp=tp,
        sequence_parallel=sequence_parallel,
        dtype=draw(st.sampled_from(("bf16", "fp32"))),
    )
    return Case(_model(draw, kind), view, draw(st.integers(0, tp - 1)))


@st.composite
def context_parallel(draw: Any, style: str) -> Case:
    """cp with or without tp, over grouped-query and latent attention."""
    cp, tp = draw(st.sampled_from(((2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (2, 4))))
    heads = _attention(draw, tp * cp if style == "all_to_all" else tp)
    attention = {**heads, **_latent(draw, heads)} if draw(st.booleans()) else heads
    view = RankView(
        batch=draw(SMALL),
        seq=cp * tp * draw(SMALL),
        tp=tp,
        cp=cp,
        cp_style=style,
        sequence_parallel=draw(st.booleans()),
        dtype=draw(st.sampled_from(("bf16", "fp32"))),
    )
    kind = {"attention": attention, "feed_forward": _mlp(draw, tp)}
    return Case(_model(draw, kind), view, draw(st.integers(0, cp * tp - 1)))


@st.composite
def expert_parallel(draw: Any, cp: int | None = None) -> Case:
    """ep and etp, with or without tp and cp, with or without a shared expert."""
    tp, etp = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 2)))
    cp = cp or draw(st.sampled_from((1, 2)))
    ep = draw(st.sampled_from((1, 2, 4) if etp > 1 else (2, 4, 8)))
    experts = ep * draw(SMALL)
    shared = draw(st.booleans())
    feed = {
        "experts": experts,
        "per_token": draw(st.integers(1, min(experts, 3))),
        "expert": _mlp(draw, etp) | {"bias": False},
        "shared": _mlp(draw, tp) if shared else None,
        "shared_gate": shared and draw(st.booleans()),
    }
    view = RankView(
        batch=1,
        seq=cp * tp * experts * draw(SMALL),  # even routing
        tp=tp,
        cp=cp,
        ep=ep,
        etp=etp,
        dtype=draw(st.sampled_from(("bf16", "fp32"))),
    )
    model = _model(draw, {"attention": _attention(draw, tp), "feed_forward": feed})
    return Case(model, view, draw(st.integers(0, tp * cp - 1)))


def _model(draw: Any, kind: dict[str, Any]) -> ModelSpec:
    """A model of one drawn kind of layer; with cross-attention, an encoder before it."""
    vocab = draw(st.integers(50, 99))  # so that each of 8 ranks has rows
    base = llama_like(
        layers=1,
        hidden=draw(st.integers(1, 40)),
        vocab=vocab,
        norm=draw(st.sampled_from(("rmsnorm", "layernorm"))),
    )
    stack = base.main.model_dump() | {"kinds": [kind]}
    if not kind.get("cross_attention"):
        return base.replace(stacks=[stack])
    encoder = {k: v for k, v in kind.items() if k != "cross_attention"}
    return base.replace(stacks=[stack | {"name": "encoder", "kinds": [encoder]}, stack])


def _attention(draw: Any, multiple: int) -> dict[str, Any]:
    groups = multiple * draw(st.integers(1, 2))
    return {
        "heads": groups * draw(SMALL),
        "kv_heads": groups,
        "head_dim": draw(st.integers(1, 6)),
        "value_dim": draw(st.none() | st.integers(1, 6)),
        "qk_norm": draw(st.booleans()),
        **{f"{part}_bias": draw(st.booleans()) for part in "qkvo"},
    }


def _latent(draw: Any, heads: dict[str, Any]) -> dict[str, Any]:
    """What makes attention latent."""
    ranks = {"query_rank": draw(st.none() | st.integers(1, 9)), "kv_rank": draw(st.integers(1, 9))}
    rotary = 2 * draw(SMALL)
    return {
        "kv_heads": heads["heads"],
        "head_dim": rotary + draw(SMALL),
        "rotary_dim": rotary,
        "latent": ranks,
        "qk_norm": False,
        **{f"{part}_bias": False for part in "qkv"},
    }


def _mlp(draw: Any, multiple: int) -> dict[str, Any]:
    return {
        "ffn": multiple * draw(st.integers(1, 9)),
        "gated": draw(st.booleans()),
        "activation": draw(st.sampled_from(("gelu", "gelu_tanh", "silu", "relu"))),
        "bias": draw(st.booleans()),
    }
