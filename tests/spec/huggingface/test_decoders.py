"""GPT-2, GPT-NeoX and OPT as ModelSpec."""

import pytest

from planner.spec.model import ModelSpec
from tests.spec.huggingface.configs import GPT2, GPT_NEOX, OPT, read, refused


def test_gpt2_and_its_defaults():
    attention = {
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 16,
        **dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias"), True),
    }
    mlp = {"ffn": 256, "gated": False, "activation": "gelu_tanh", "bias": True}
    assert read(GPT2) == ModelSpec.model_validate(
        {
            "name": "a",
            "family": "gpt2",
            "hidden": 64,
            "stacks": [
                {
                    "name": "decoder",
                    "embedding": {"vocab": 100, "max_positions": 1024, "positions": "learned"},
                    "kinds": [{"attention": attention, "feed_forward": mlp}],
                    "order": [0, 0],
                }
            ],
            "head": {"classes": 100},
            "norm": "layernorm",
            "norm_eps": 1e-5,
            "tied_embeddings": True,
        }
    )


def test_gpt2_by_its_other_spellings():
    other = {
        "model_type": "gpt2",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "max_position_embeddings": 1024,
    }
    assert read(other) == read(GPT2)


def test_the_inner_width_of_gpt2():
    assert read(GPT2, n_inner=None).layer.feed_forward.ffn == 256
    assert read(GPT2, n_inner=100).layer.feed_forward.ffn == 100


def test_gpt2_with_cross_attention_is_refused():
    assert read(GPT2, add_cross_attention=False) == read(GPT2)
    message = refused(GPT2, add_cross_attention=True)
    assert "add_cross_attention: True is not supported" in message
    assert "architecture/1 document" in message


def test_heads_that_do_not_divide_are_refused():
    assert "n_head: missing, and hidden 64 is no multiple of heads 7" in refused(GPT2, n_head=7)


def test_gpt_neox_and_its_defaults():
    model = read(GPT_NEOX, hidden_size=256)
    layer, attention = model.layer, model.layer.attention
    assert layer.parallel
    assert layer.placement == "pre"
    assert (attention.head_dim, attention.rotary_dim, attention.rope_theta) == (32, 8, 1e4)
    assert attention.q_bias
    assert attention.o_bias
    assert layer.feed_forward.bias
    assert not layer.feed_forward.gated
    assert model.norm == "layernorm"
    assert not model.tied_embeddings
    assert model.max_positions == 2048


def test_gpt_neox_switches():
    model = read(GPT_NEOX, attention_bias=False, use_parallel_residual=False, rotary_pct=1.0)
    assert not model.layer.parallel
    assert not model.layer.attention.k_bias
    assert model.layer.feed_forward.bias
    assert model.layer.attention.rotary_dim == 8


def test_opt_and_its_defaults():
    model = read(OPT)
    table = model.main.embedding
    assert (table.max_positions, table.position_offset, table.position_rows) == (2048, 2, 2050)
    assert table.width is None
    assert model.main.final_norm
    assert model.layer.placement == "pre"
    assert model.layer.feed_forward.activation == "relu"
    assert model.layer.attention.o_bias
    assert model.tied_embeddings
    assert model.norm_affine


def test_opt_350m_has_norms_after_and_a_narrow_table():
    model = read(OPT, do_layer_norm_before=False, word_embed_proj_dim=32)
    assert model.layer.placement == "post"
    assert not model.main.final_norm
    assert (model.main.embedding.width, model.head.width) == (32, 32)
    assert model.tied_embeddings
    assert read(OPT, word_embed_proj_dim=64) == read(OPT, word_embed_proj_dim=None) == read(OPT)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_opt_switches(affine, bias):
    model = read(OPT, layer_norm_elementwise_affine=affine, enable_bias=bias)
    assert model.norm_affine is affine
    assert model.layer.attention.v_bias is bias
    assert model.layer.feed_forward.bias is bias
    assert not read(OPT, _remove_final_layer_norm=True).main.final_norm
