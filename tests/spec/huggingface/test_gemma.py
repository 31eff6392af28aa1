"""Gemma 1, 2 and 3 as ModelSpec."""

import pytest

from tests.spec.huggingface.configs import (
    GEMMA,
    GEMMA2,
    GEMMA3,
    name_of,
    read,
    refused,
    without,
)


def test_gemma_and_its_defaults():
    model = read(GEMMA)
    attention = model.layer.attention
    assert (attention.kv_heads, attention.head_dim, attention.rotary_dim) == (16, 256, 256)
    assert model.layer.feed_forward.activation == "gelu_tanh"
    assert model.layer.feed_forward.gated
    assert model.layer.placement == "pre"
    assert model.max_positions == 8192


def test_plain_gelu_means_its_tanh_form_in_gemma():
    assert read(GEMMA, hidden_act="gelu").layer.feed_forward.activation == "gelu_tanh"
    assert read(GEMMA, hidden_act="relu").layer.feed_forward.activation == "relu"


def test_gemma2_and_its_defaults():
    model = read(GEMMA2)
    assert model.main.order == (0, 1, 0, 1)
    sliding, full = model.main.kinds
    assert (sliding.attention.window, full.attention.window) == (4096, None)
    assert sliding.placement == full.placement == "sandwich"
    assert sliding.attention.score_cap == 50
    assert not sliding.attention.qk_norm
    assert read(GEMMA2, attn_logit_softcapping=None).main.kinds[0].attention.score_cap is None
    assert read(GEMMA2, hidden_activation="silu").main.kinds[0].feed_forward.activation == "silu"


def test_gemma3_and_its_defaults():
    model = read(GEMMA3)
    assert model.main.order == (0, 0, 0, 0, 0, 1, 0)
    sliding, full = (kind.attention for kind in model.main.kinds)
    assert (sliding.window, full.window) == (4096, None)
    assert (sliding.rope_theta, full.rope_theta) == (1e4, 1e6)
    assert (sliding.score_cap, sliding.qk_norm, sliding.kv_heads) == (None, True, 4)
    assert model.max_positions == 131_072


@pytest.mark.parametrize(
    "shape",
    [
        {"rope_theta": 5e5, "rope_local_base_freq": 2e4},
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 5e5},
                "sliding_attention": {"rope_theta": 2e4},
            }
        },
        {
            "rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": None},
            "rope_local_base_freq": 2e4,
        },
    ],
)
def test_the_bases_of_gemma3_in_both_shapes(shape):
    sliding, full = (kind.attention for kind in read(GEMMA3, **shape).main.kinds)
    assert (sliding.rope_theta, full.rope_theta) == (2e4, 5e5)


def test_the_pattern_of_gemma3():
    assert read(GEMMA3, sliding_window_pattern=2).main.order == (0, 1, 0, 1, 0, 1, 0)
    assert read(GEMMA3, sliding_window_pattern=1).main.order == (0,) * 7
    types = ["full_attention", *["sliding_attention"] * 6]
    assert read(GEMMA3, layer_types=types).main.order == (0, *[1] * 6)


def test_a_nested_gemma3_leaves_out_the_defaults_of_its_class():
    inner = {"model_type": "gemma3_text", "num_hidden_layers": 7, "hidden_size": 64}
    model = read({"model_type": "gemma3", "text_config": inner})
    assert (model.vocab, model.main.kinds[0].attention.heads) == (262_208, 8)
    assert model.main.kinds[0].feed_forward.ffn == 9216
    assert "vocab_size: missing" in refused(without(GEMMA3, "vocab_size"))


@pytest.mark.parametrize("data", [GEMMA, GEMMA2, GEMMA3], ids=name_of)
def test_attention_in_both_directions_is_refused(data):
    assert read(data, use_bidirectional_attention=None) == read(data)
    assert read(data, use_bidirectional_attention=False) == read(data)
    assert "use_bidirectional_attention: True" in refused(data, use_bidirectional_attention=True)
    assert "use_bidirectional_attention: 'all'" in refused(data, use_bidirectional_attention="all")
