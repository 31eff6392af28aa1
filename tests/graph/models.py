"""Drawn architectures: every choice that a ModelSpec has, in small sizes."""

from hypothesis import strategies as st

from planner.spec.layer import MLP, Attention, Experts, Latent, LayerSpec
from planner.spec.model import Convolution, Embedding, Head, ModelSpec, Stack

HIDDEN = 32


@st.composite
def attentions(draw: st.DrawFn, causal: bool = True) -> Attention:
    groups, queries = draw(st.sampled_from([4, 8])), draw(st.sampled_from([1, 2, 3]))
    head_dim = draw(st.sampled_from([2, 4, 6]))
    biases = {f"{name}_bias": draw(st.booleans()) for name in "qkvo"}
    return Attention(
        heads=groups * queries,
        kv_heads=groups,
        head_dim=head_dim,
        value_dim=draw(st.sampled_from([None, 4])),
        causal=causal,
        window=draw(st.sampled_from([None, 4, 64])),
        qk_norm=draw(st.booleans()),
        rotary_dim=draw(st.sampled_from([0, 2])),
        relative_buckets=draw(st.sampled_from([0, 8])),
        **biases,
    )


@st.composite
def latents(draw: st.DrawFn) -> Attention:
    return Attention(
        heads=8,
        kv_heads=8,
        head_dim=6,
        value_dim=4,
        rotary_dim=2,
        q_bias=draw(st.booleans()),
        k_bias=draw(st.booleans()),
        latent=Latent(query_rank=draw(st.sampled_from([None, 12])), kv_rank=10),
    )


@st.composite
def mlps(draw: st.DrawFn) -> MLP:
    return MLP(
        ffn=draw(st.sampled_from([16, 24, 64])),
        gated=draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "silu", "relu"])),
        bias=draw(st.booleans()),
    )


@st.composite
def experts(draw: st.DrawFn) -> Experts:
    shared = draw(st.one_of(st.none(), mlps()))
    return Experts(
        experts=draw(st.sampled_from([4, 8])),
        per_token=draw(st.sampled_from([1, 2, 4])),
        expert=draw(mlps()),
        shared=shared,
        shared_gate=shared is not None and draw(st.booleans()),
    )


@st.composite
def layers(draw: st.DrawFn) -> LayerSpec:
    placement = draw(st.sampled_from(["pre", "post", "sandwich"]))
    return LayerSpec(
        attention=draw(st.one_of(attentions(), latents())),
        feed_forward=draw(st.one_of(mlps(), experts())),
        placement=placement,
        parallel=placement == "pre" and draw(st.booleans()),
    )


@st.composite
def embeddings(draw: st.DrawFn, vocab: int | None) -> Embedding:
    return Embedding(
        vocab=vocab,
        width=draw(st.sampled_from([None, 20])) if vocab else None,
        max_positions=64,
        positions=draw(st.sampled_from(["learned", "frozen", "none"])),
        position_offset=draw(st.sampled_from([0, 2])),
        token_types=draw(st.sampled_from([0, 2])),
        norm=draw(st.booleans()),
        convolutions=() if vocab else (Convolution(channels=3, kernel=4, stride=4),),
        class_token=vocab is None,
    )


@st.composite
def decoders(draw: st.DrawFn) -> ModelSpec:
    """Models of one stack with up to three kinds of layers."""
    kinds = tuple(draw(st.lists(layers(), min_size=1, max_size=3)))
    more = draw(st.lists(st.integers(0, len(kinds) - 1), max_size=3))
    table = draw(embeddings(draw(st.integers(5, 120))))
    tied = draw(st.booleans())
    head = Head(
        classes=table.vocab or 0,
        width=table.width if tied else draw(st.sampled_from([None, 20])),
        transform=table.width is None and draw(st.booleans()),
        bias=draw(st.booleans()),
        mtp_layers=draw(st.sampled_from([0, 1])) if table.width is None else 0,
    )
    if head.width is not None and head.transform:
        head = head.replace(transform=False)
    return ModelSpec(
        name="drawn",
        family="drawn",
        hidden=HIDDEN,
        stacks=(
            Stack(
                name="decoder",
                embedding=table,
                kinds=kinds,
                order=(*range(len(kinds)), *more),
                final_norm=draw(st.booleans()),
            ),
        ),
        head=head,
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_affine=draw(st.booleans()),
        tied_embeddings=tied,
    )


@st.composite
def translators(draw: st.DrawFn) -> ModelSpec:
    """Models of an encoder and a decoder."""
    placement = draw(st.sampled_from(["pre", "post"]))
    own, other = draw(attentions(causal=False)), draw(attentions(causal=False))
    reads = other.replace(rotary_dim=0, relative_buckets=0, window=None, qk_norm=False)
    encoder = LayerSpec(attention=own, feed_forward=draw(mlps()), placement=placement)
    decoder = LayerSpec(
        attention=draw(attentions()),
        cross_attention=reads,
        feed_forward=draw(mlps()),
        placement=placement,
    )
    vocab = draw(st.integers(5, 120))
    sound = draw(st.booleans())
    first = draw(embeddings(None if sound else vocab))
    second = draw(embeddings(vocab)).replace(width=None)
    if first.width is None and not sound:
        second = second.replace(shared_table=draw(st.booleans()))
    counts = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return ModelSpec(
        name="drawn",
        family="drawn",
        hidden=HIDDEN,
        stacks=(
            Stack(name="encoder", embedding=first, kinds=(encoder,), order=(0,) * counts[0]),
            Stack(name="decoder", embedding=second, kinds=(decoder,), order=(0,) * counts[1]),
        ),
        head=Head(classes=vocab),
        norm="layernorm",
        tied_embeddings=draw(st.booleans()),
    )


def models() -> st.SearchStrategy[ModelSpec]:
    """Any model."""
    return st.one_of(decoders(), translators())
