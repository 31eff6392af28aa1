"""Llama and the decoders that share its keys as ModelSpec."""

import pytest

from planner.spec.huggingface.keys import ACTIVATIONS, MOST_LAYERS
from planner.spec.model import ModelSpec
from tests.spec.huggingface.configs import (
    DECODERS,
    GPT2,
    LLAMA,
    MISTRAL,
    PHI3,
    QWEN2,
    QWEN3,
    name_of,
    read,
    refused,
)


def test_llama_and_its_defaults():
    attention = {"heads": 8, "kv_heads": 8, "head_dim": 8, "rotary_dim": 8, "rope_theta": 1e4}
    mlp = {"ffn": 176, "gated": True, "activation": "silu"}
    assert read(LLAMA) == ModelSpec.model_validate(
        {
            "name": "a",
            "family": "llama",
            "hidden": 64,
            "stacks": [
                {
                    "name": "decoder",
                    "embedding": {"vocab": 100, "max_positions": 2048},
                    "kinds": [{"attention": attention, "feed_forward": mlp}],
                    "order": [0, 0],
                }
            ],
            "head": {"classes": 100},
            "norm": "rmsnorm",
            "norm_eps": 1e-6,
        }
    )


def test_the_others_differ_where_their_classes_do():
    mistral, qwen2, phi3 = read(MISTRAL), read(QWEN2), read(PHI3)
    assert (mistral.layer.attention.kv_heads, mistral.max_positions) == (8, 131_072)
    assert mistral.layer.attention.window == 4096
    assert not mistral.layer.attention.q_bias
    attention = qwen2.layer.attention
    assert (attention.kv_heads, attention.window, qwen2.max_positions) == (32, None, 32_768)
    assert attention.q_bias
    assert attention.k_bias
    assert attention.v_bias
    assert not attention.o_bias
    assert not qwen2.layer.feed_forward.bias
    assert (phi3.norm_eps, phi3.max_positions, phi3.layer.attention.window) == (1e-5, 4096, None)


def test_qwen3_has_heads_of_their_own_width_and_norms_over_them():
    attention = read(QWEN3).layer.attention
    assert (attention.head_dim, attention.rotary_dim, attention.kv_heads) == (128, 128, 32)
    assert attention.qk_norm
    assert not attention.q_bias
    biased = read(QWEN3, attention_bias=True).layer.attention
    assert biased.v_bias
    assert biased.o_bias


def test_null_is_not_the_same_as_missing():
    heads_32 = {**MISTRAL, "num_attention_heads": 32}
    assert read(heads_32).layer.attention.kv_heads == 8
    assert read(heads_32, num_key_value_heads=None).layer.attention.kv_heads == 32
    assert read(MISTRAL, sliding_window=None).layer.attention.window is None
    assert read(LLAMA, head_dim=None).layer.attention.head_dim == 8
    assert read(LLAMA, head_dim=32).layer.attention.query_width == 256


def test_llama_biases_are_two_switches():
    biased = read(LLAMA, attention_bias=True).layer
    assert biased.attention.q_bias
    assert biased.attention.o_bias
    assert not biased.feed_forward.bias
    assert read(LLAMA, mlp_bias=True).layer.feed_forward.bias


@pytest.mark.parametrize("data", DECODERS, ids=name_of)
@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_read(data, tied):
    assert read(data, tie_word_embeddings=tied).tied_embeddings is tied


@pytest.mark.parametrize("data", DECODERS, ids=name_of)
def test_tied_embeddings_where_nothing_is_said(data):
    tied = {"gpt2", "opt", "gemma", "gemma2", "gemma3_text"}
    assert read(data).tied_embeddings is (data["model_type"] in tied)


@pytest.mark.parametrize("theirs", ACTIVATIONS)
def test_activations_by_our_names(theirs):
    assert read(LLAMA, hidden_act=theirs).layer.feed_forward.activation == ACTIVATIONS[theirs]
    model = read(GPT2, activation_function=theirs)
    assert model.layer.feed_forward.activation == ACTIVATIONS[theirs]


def test_an_unknown_activation_names_the_supported_ones():
    message = refused(LLAMA, hidden_act="swiglu")
    assert "a/config.json: hidden_act: 'swiglu' is not supported" in message
    assert "gelu_new" in message


def test_heads_that_do_not_fit_are_refused():
    assert "hidden 64 is no multiple of heads 7" in refused(LLAMA, num_attention_heads=7)
    assert "heads=8 is not a multiple of kv_heads=3" in refused(LLAMA, num_key_value_heads=3)
    assert "head_dim: 5 is odd" in refused(LLAMA, head_dim=5)


def test_a_model_of_a_million_layers_is_refused():
    message = refused(LLAMA, num_hidden_layers=10**12)
    assert f"num_hidden_layers: {10**12} layers; more than {MOST_LAYERS}" in message
