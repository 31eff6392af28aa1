"""Mixtures of experts as ModelSpec."""

import pytest

from planner.spec.layer import MLP, Experts, Latent
from tests.spec.huggingface.configs import (
    DEEPSEEK,
    GPT_OSS,
    MIXTRAL,
    QWEN2_MOE,
    QWEN3_MOE,
    read,
    refused,
    without,
)


def sparse(model) -> list[bool]:
    stack = model.main
    return [isinstance(stack.kinds[kind].feed_forward, Experts) for kind in stack.order]


def test_mixtral():
    model = read(MIXTRAL)
    expert = MLP(ffn=176, gated=True, activation="silu")
    assert model.layer.feed_forward == Experts(experts=4, per_token=2, expert=expert)
    assert (model.norm_eps, model.layer.attention.kv_heads) == (1e-5, 8)
    assert model.max_positions == 131_072


@pytest.mark.parametrize(
    ("data", "key", "alias"),
    [
        (MIXTRAL, "num_local_experts", "num_experts"),
        (QWEN3_MOE, "num_experts", "num_local_experts"),
        (DEEPSEEK, "n_routed_experts", "num_local_experts"),
    ],
)
def test_the_number_of_experts_by_its_other_spelling(data, key, alias):
    assert read(without(data, key), **{alias: data[key]}) == read(data)


def test_qwen2_moe_has_a_gated_shared_expert():
    model = read(QWEN2_MOE)
    feed = model.layer.feed_forward
    assert (feed.experts, feed.per_token, feed.expert.ffn, feed.shared.ffn) == (6, 2, 24, 40)
    assert feed.shared_gate
    attention = model.layer.attention
    assert attention.q_bias
    assert not attention.o_bias
    assert attention.kv_heads == 16
    assert not read(QWEN2_MOE, qkv_bias=False).layer.attention.q_bias


def test_qwen3_moe():
    model = read(QWEN3_MOE)
    assert model.layer.feed_forward.shared is None
    assert (model.layer.attention.kv_heads, model.layer.attention.head_dim) == (4, 8)
    assert model.layer.attention.qk_norm
    assert read(QWEN3_MOE, head_dim=12).layer.attention.head_dim == 12


@pytest.mark.parametrize("data", [QWEN2_MOE, QWEN3_MOE])
def test_dense_and_sparse_layers(data):
    four = {**data, "num_hidden_layers": 4}
    assert sparse(read(four)) == [True] * 4
    assert sparse(read(four, decoder_sparse_step=2)) == [False, True, False, True]
    assert sparse(read(four, mlp_only_layers=[0, 3])) == [False, True, True, False]
    both = read(four, decoder_sparse_step=2, mlp_only_layers=[1])
    assert sparse(both) == [False, False, False, True]
    assert both.main.kinds[0].feed_forward == MLP(ffn=176, gated=True, activation="silu")
    assert read(four, mlp_only_layers=None) == read(four)


def test_gpt_oss():
    model = read(GPT_OSS, num_hidden_layers=3)
    assert [model.main.kinds[kind].attention.window for kind in model.main.order] == [
        128,
        None,
        128,
    ]
    attention, feed = model.main.kinds[0].attention, model.main.kinds[0].feed_forward
    assert attention.sinks
    assert attention.q_bias
    assert attention.o_bias
    assert (attention.kv_heads, attention.head_dim) == (8, 64)
    assert feed.router_bias
    assert feed.expert.bias
    assert not read(GPT_OSS, attention_bias=False).main.kinds[0].attention.q_bias


def test_deepseek_v3():
    model = read(DEEPSEEK)
    assert sparse(model) == [False] * 3 + [True] * 2
    attention = model.main.kinds[0].attention
    assert attention.latent == Latent(query_rank=20, kv_rank=10)
    assert (attention.head_dim, attention.rotary_dim, attention.value_dim) == (11, 4, 9)
    assert (attention.heads, attention.kv_heads) == (8, 8)
    feed = model.main.kinds[1].feed_forward
    assert feed.shared == feed.expert == MLP(ffn=24, gated=True, activation="silu")
    assert not feed.shared_gate
    assert model.max_positions == 4096


def test_deepseek_v3_switches():
    plain = read(DEEPSEEK, q_lora_rank=None, attention_bias=True).main.kinds[0].attention
    assert plain.latent == Latent(kv_rank=10)
    assert not plain.q_bias
    assert plain.k_bias
    assert plain.o_bias
    assert read(DEEPSEEK, attention_bias=True).main.kinds[0].attention.q_bias
    feed = read(DEEPSEEK, n_shared_experts=2).main.kinds[1].feed_forward
    assert feed.shared.ffn == 48
    assert read(DEEPSEEK, n_shared_experts=0).main.kinds[1].feed_forward.shared is None
    assert sparse(read(DEEPSEEK, first_k_dense_replace=0)) == [True] * 5
    assert sparse(read(DEEPSEEK, first_k_dense_replace=9)) == [False] * 5


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "num_mtp_layers"])
def test_layers_for_further_tokens_are_an_option_of_the_document(key):
    assert read(DEEPSEEK, **{key: 1}).head.mtp_layers == 0


def test_what_latent_attention_cannot_say_is_refused():
    assert "num_key_value_heads: latent attention" in refused(DEEPSEEK, num_key_value_heads=4)
    assert "qk_rope_head_dim: 3 is odd" in refused(DEEPSEEK, qk_rope_head_dim=3)
    assert "moe_layer_freq: only 1" in refused(DEEPSEEK, moe_layer_freq=2)


def test_more_experts_per_token_than_experts_are_refused():
    assert "per_token=7 is more than experts=6" in refused(QWEN3_MOE, num_experts_per_tok=7)
