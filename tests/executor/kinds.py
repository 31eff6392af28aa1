"""Small models of every kind that the executor can be, beside GPT-2 and Llama."""

from typing import Any

from planner.spec.layer import MLP, Experts
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like, with_attention

H, HEADS, WIDTH, VOCAB, LONGEST = 32, 4, 8, 97, 64
BIASES = dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias"), True)
EXPERTS = Experts(experts=4, per_token=2, expert=MLP(ffn=24, gated=True, activation="silu"))
ATTENTION = {"heads": HEADS, "kv_heads": HEADS, "head_dim": WIDTH}


def bert_like(head: dict[str, Any], **changes: Any) -> ModelSpec:
    """Norms after, learned positions and token types with a norm, biases."""
    layer = {
        "attention": {**ATTENTION, **BIASES, "causal": False},
        "feed_forward": {"ffn": 64, "gated": False, "activation": "gelu", "bias": True},
        "placement": "post",
    }
    embedding = {
        "vocab": VOCAB,
        "max_positions": LONGEST,
        "positions": "learned",
        "position_offset": 2,
        "token_types": 2,
        "norm": True,
    }
    stack = {**_stack("encoder", embedding, layer, final_norm=False), "order": [0] * 4}
    return _model("bert", [stack], head, **changes)


def t5_like(**changes: Any) -> ModelSpec:
    """An encoder and a decoder with one table, relative positions, RMS norms before."""
    own = {**ATTENTION, "relative_buckets": 8}
    mlp = {"ffn": 48, "gated": True, "activation": "gelu_tanh"}
    encoder = {"attention": {**own, "causal": False}, "feed_forward": mlp}
    reads = {"cross_attention": {**ATTENTION, "causal": False}}
    decoder = {"attention": own, "feed_forward": mlp, **reads}
    table = {"vocab": VOCAB, "max_positions": LONGEST}
    stacks = [
        _stack("encoder", table, encoder),
        _stack("decoder", {**table, "shared_table": True}, decoder),
    ]
    return _model("t5", stacks, {"classes": VOCAB}, norm="rmsnorm", **changes)


def bart_like() -> ModelSpec:
    """An encoder and a decoder with tables of their own, learned positions, norms after."""
    mlp = {"ffn": 64, "gated": False, "activation": "gelu", "bias": True}
    both = {"feed_forward": mlp, "placement": "post"}
    encoder = {"attention": {**ATTENTION, **BIASES, "causal": False}, **both}
    reads = {**ATTENTION, **BIASES, "causal": False}
    decoder = {"attention": {**ATTENTION, **BIASES}, "cross_attention": reads, **both}
    table = {"max_positions": LONGEST, "positions": "learned", "norm": True}
    stacks = [
        _stack("encoder", {"vocab": 61, **table}, encoder, final_norm=False),
        _stack("decoder", {"vocab": VOCAB, **table}, decoder, final_norm=False),
    ]
    return _model("bart", stacks, {"classes": VOCAB}, tied_embeddings=False)


def neox_like() -> ModelSpec:
    """Attention and MLP side by side, rotary positions of half a head."""
    spec = with_attention(llama_like(norm="layernorm", tied_embeddings=True), rotary_dim=2)
    return _with_kinds(spec, {"parallel": True})


def gemma_like() -> ModelSpec:
    """Two kinds of layers, norms on both sides."""
    spec = with_attention(llama_like(tied_embeddings=True), qk_norm=True)
    return _with_kinds(spec, {"placement": "sandwich"}, {})


def mixtral_like(**changes: Any) -> ModelSpec:
    """Experts behind a router in every layer."""
    return _with_kinds(llama_like(), {"feed_forward": EXPERTS.replace(**changes)})


def qwen_moe_like() -> ModelSpec:
    """Dense layers and layers of experts in turn, a gated shared expert."""
    shared = EXPERTS.replace(shared=EXPERTS.expert, shared_gate=True)
    return _with_kinds(llama_like(), {}, {"feed_forward": shared})


def _with_kinds(spec: ModelSpec, *changes: dict[str, Any]) -> ModelSpec:
    kinds = tuple(spec.layer.replace(**each) for each in changes)
    order = tuple(i % len(kinds) for i in range(spec.layers))
    return spec.replace(stacks=(spec.main.replace(kinds=kinds, order=order),))


def _stack(name: str, embedding: Any, layer: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "embedding": embedding, "kinds": [layer], "order": [0, 0], **more}


def _model(family: str, stacks: list[Any], head: dict[str, Any], **more: Any) -> ModelSpec:
    values = {"name": f"small-{family}", "family": family, "hidden": H, "stacks": stacks}
    values |= {"head": head, "norm": "layernorm", "tied_embeddings": True}
    return ModelSpec.model_validate(values | more)


MIXTURES = {
    "mixtral": mixtral_like(),
    "qwen-moe": qwen_moe_like(),
    "moe-biases": mixtral_like(
        expert=MLP(ffn=24, gated=False, activation="gelu", bias=True), per_token=3
    ),
}
KINDS = {
    "bert-masked": bert_like({"classes": VOCAB, "transform": True, "bias": True}),
    "bert-tokens": bert_like(
        {"kind": "token_classification", "classes": 5, "bias": True}, tied_embeddings=False
    ),
    "bert-sequences": bert_like(
        {"kind": "sequence_classification", "classes": 3, "pooler": True, "bias": True},
        tied_embeddings=False,
    ),
    "gpt2-sequences": gpt2_like(
        head={"kind": "sequence_classification", "classes": 3}, tied_embeddings=False
    ),
    "t5": t5_like(),
    "bart": bart_like(),
    "neox": neox_like(),
    "gemma": gemma_like(),
}
