"""Everything that is not plain is named by its key; what the torch models know is not."""

from typing import Any

import pytest

from planner.spec import plain
from planner.spec.layer import MLP, Attention, Experts, Latent
from planner.spec.model import ModelSpec, Stack
from tests.examples import gpt2_like, llama_like, with_attention

SEQ_LEN = 16


def with_layer(**changes: Any) -> ModelSpec:
    spec = llama_like()
    return spec.replace(stacks=(spec.main.replace(kinds=(spec.layer.replace(**changes),)),))


def with_embedding(**changes: Any) -> ModelSpec:
    spec = llama_like()
    return spec.replace(stacks=(spec.main.replace(embedding=embedding_of(spec, **changes)),))


def embedding_of(spec: ModelSpec, **changes: Any) -> Any:
    return spec.main.embedding.replace(**changes)


def with_head(**changes: Any) -> ModelSpec:
    spec = llama_like()
    return spec.replace(head=spec.head.replace(**changes))


def with_stack(**changes: Any) -> ModelSpec:
    spec = llama_like()
    return spec.replace(stacks=(spec.main.replace(**changes),))


def two_stacks() -> ModelSpec:
    spec = llama_like()
    encoder = Stack.model_validate({**dict(spec.main), "name": "encoder"})
    cross = spec.layer.attention.replace(rotary_dim=0)
    reads = spec.layer.replace(cross_attention=cross)
    return spec.replace(stacks=(encoder, spec.main.replace(kinds=(reads,))))


MLP_SPEC = MLP(ffn=8, gated=True, activation="silu")
LATENT = Attention(heads=8, kv_heads=8, head_dim=6, rotary_dim=2, latent=Latent(kv_rank=4))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (
            with_layer(feed_forward=Experts(experts=4, per_token=2, expert=MLP_SPEC)),
            ["model.stacks.0.kinds.0.feed_forward: experts are not implemented"],
        ),
        (with_layer(placement="post"), ["model.stacks.0.kinds.0.placement=post"]),
        (with_layer(placement="sandwich"), ["model.stacks.0.kinds.0.placement=sandwich"]),
        (with_layer(parallel=True), ["model.stacks.0.kinds.0.parallel=true"]),
        (with_layer(attention=LATENT), ["model.stacks.0.kinds.0.attention.latent is not"]),
        *(
            (with_attention(llama_like(), **{key: value}), [f"attention.{key}={shown}"])
            for key, value, shown in (
                ("window", 8, "8 is less than seq_len=16"),
                ("value_dim", 8, "8 differs from head_dim=4"),
                ("causal", False, "false"),
                ("relative_buckets", 32, "32"),
                ("score_cap", 50.0, "50.0"),
            )
        ),
        *(
            (with_embedding(**{key: value}), [f"model.stacks.0.embedding.{key}={shown}"])
            for key, value, shown in (
                ("width", 16, "16"),
                ("positions", "frozen", "frozen"),
                ("token_types", 2, "2"),
                ("norm", True, "true"),
                ("class_token", True, "true"),
            )
        ),
        (
            with_embedding(positions="learned", position_offset=2, max_positions=8),
            [
                "model.stacks.0.embedding.position_offset=2",
                "seq_len=16 exceeds model.stacks.0.embedding.max_positions=8",
            ],
        ),
        *(
            (with_head(**{key: value}), [f"model.head.{key}={shown}"])
            for key, value, shown in (
                ("classes", 7, "7 differs from the vocabulary 96"),
                ("kind", "token_classification", "token_classification"),
                ("width", 16, "16"),
                ("transform", True, "true"),
                ("pooler", True, "true"),
                ("bias", True, "true"),
                ("mtp_layers", 1, "1"),
            )
        ),
        (with_stack(final_norm=False), ["model.stacks.0.final_norm=false"]),
        (with_stack(name="encoder"), ["model.stacks.0.name=encoder"]),
        (
            with_stack(
                kinds=(llama_like().layer, with_attention(llama_like(), q_bias=True).layer),
                order=(0, 1),
            ),
            ["model.stacks.0.kinds: 2 kinds"],
        ),
        (
            two_stacks(),
            [
                "model.stacks: an encoder and a decoder",
                "model.stacks.0.name=encoder",
                "model.stacks.1.kinds.0.cross_attention",
            ],
        ),
    ],
)
def test_names_what_is_not_plain(spec: ModelSpec, named: list[str]) -> None:
    found = list(plain.problems(spec, SEQ_LEN))
    assert len(found) == len(named)
    for problem, text in zip(found, named, strict=True):
        assert text in problem
        assert "implemented" in problem or "exceeds" in problem


@pytest.mark.parametrize(
    "spec",
    [
        gpt2_like(),
        llama_like(sliding_window=SEQ_LEN, norm_affine=False),
        with_attention(gpt2_like(), k_bias=False),
        with_attention(llama_like(head_dim=8), rotary_dim=4, qk_norm=True, value_dim=8),
    ],
)
def test_plain_decoders_have_no_problem(spec: ModelSpec) -> None:
    assert list(plain.problems(spec, SEQ_LEN)) == []
    assert plain.mlp(spec) is spec.layer.feed_forward


def test_images_are_not_tokens() -> None:
    patches = {"vocab": None, "convolutions": [{"channels": 3, "kernel": 4}], "max_positions": 16}
    found = list(plain.problems(with_stack(embedding=patches), SEQ_LEN))
    assert any("model.stacks.0.embedding.convolutions is not implemented" in text for text in found)
