"""Valid models of every structure, drawn at random."""

from typing import Any

from hypothesis import strategies as st

from planner.spec.layer import MLP, Attention, Experts, Latent, LayerSpec
from planner.spec.model import Convolution, Embedding, Head, ModelSpec, Stack

flag = st.booleans()
count = st.integers(1, 10**6)
small = st.integers(1, 16)
names = st.text(st.characters(codec="utf-8"), max_size=12)
activations = st.sampled_from(["gelu", "gelu_tanh", "silu", "relu"])
mlps = st.builds(MLP, ffn=count, gated=flag, activation=activations, bias=flag)


@st.composite
def attentions(draw: Any, latent: bool = False) -> Attention:
    kv_heads, width = draw(small), draw(st.integers(1, 256))
    turned = draw(st.integers(0, (width - latent) // 2)) * 2
    return Attention(
        heads=kv_heads * (1 if latent else draw(small)),
        kv_heads=kv_heads,
        head_dim=width,
        value_dim=draw(st.none() | small),
        causal=draw(flag),
        window=draw(st.none() | count),
        q_bias=draw(flag),
        k_bias=draw(flag),
        v_bias=draw(flag),
        o_bias=draw(flag),
        qk_norm=draw(flag),
        rotary_dim=turned,
        rope_theta=draw(st.floats(1, 1e9)),
        relative_buckets=draw(st.integers(0, 32)),
        score_cap=draw(st.none() | st.floats(1, 100)),
        sinks=draw(flag),
        latent=draw(st.builds(Latent, query_rank=st.none() | small, kv_rank=small))
        if latent
        else None,
    )


def _of_the_encoder(attention: Attention) -> Attention:
    """Attention to another stream has neither positions nor normed heads."""
    return attention.replace(qk_norm=False, rotary_dim=0, relative_buckets=0, sinks=False)


@st.composite
def experts(draw: Any) -> Experts:
    shared = draw(st.none() | mlps)
    total = draw(small)
    return Experts(
        experts=total,
        per_token=draw(st.integers(1, total)),
        expert=draw(mlps),
        router_bias=draw(flag),
        shared=shared,
        shared_gate=shared is not None and draw(flag),
    )


@st.composite
def layers(draw: Any, reads: bool) -> LayerSpec:
    latent = not reads and draw(flag)
    plain = st.sampled_from(["pre", "post"])
    placement = draw(plain if reads else plain | st.just("sandwich"))
    return LayerSpec(
        attention=draw(attentions(latent=latent)),
        cross_attention=draw(attentions().map(_of_the_encoder)) if reads else None,
        feed_forward=draw(mlps | experts()),
        placement=placement,
        parallel=placement == "pre" and not reads and draw(flag),
    )


@st.composite
def embeddings(draw: Any, vocab: int | None) -> Embedding:
    filters = st.builds(Convolution, channels=small, kernel=small, stride=small, activated=flag)
    return Embedding(
        vocab=vocab,
        width=None if vocab is None else draw(st.none() | small),
        max_positions=draw(count),
        positions=draw(st.sampled_from(["learned", "frozen", "none"])),
        position_offset=draw(st.integers(0, 3)),
        token_types=draw(st.integers(0, 3)),
        norm=draw(flag),
        convolutions=() if vocab else draw(st.lists(filters, min_size=1, max_size=2).map(tuple)),
        class_token=draw(flag),
    )


@st.composite
def stacks(draw: Any, name: str, vocab: int | None, reads: bool = False) -> Stack:
    kinds = draw(st.lists(layers(reads), min_size=1, max_size=2))
    more = draw(st.lists(st.integers(0, len(kinds) - 1), max_size=3))
    return Stack(
        name=name,
        embedding=draw(embeddings(vocab)),
        kinds=tuple(kinds),
        order=(*range(len(kinds)), *more),
        final_norm=draw(flag),
    )


@st.composite
def models(draw: Any) -> ModelSpec:
    vocab = draw(st.integers(2, 10**6))
    two = draw(flag)
    first = draw(stacks("encoder", draw(st.none() | st.just(vocab)))) if two else None
    last = draw(stacks("decoder", vocab, reads=True) if two else stacks("decoder", vocab))
    tied = draw(flag)
    heads = st.sampled_from(["language_model", "sequence_classification", "none"])
    kind = "language_model" if tied else draw(heads)
    return ModelSpec(
        name=draw(names),
        family=draw(names),
        hidden=draw(count),
        stacks=(last,) if first is None else (first, last),
        head=Head(
            kind=kind,
            classes=0 if kind == "none" else vocab,
            width=last.embedding.width if tied else draw(st.none() | small),
            transform=draw(flag),
            pooler=draw(flag),
            bias=draw(flag),
            mtp_layers=draw(st.integers(0, 2)),
        ),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_eps=draw(st.floats(1e-12, 1)),
        norm_affine=draw(flag),
        tied_embeddings=tied,
        published_parameters=draw(st.none() | count),
    )
