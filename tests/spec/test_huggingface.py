"""config.json of Hugging Face: both shapes, the defaults by class, and clear refusals."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from planner.spec.huggingface import ACTIVATIONS, read_config
from planner.spec.model import ModelSpec

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 100}
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_attention_heads": 8,
    "vocab_size": 100,
}
MISTRAL = {**LLAMA, "model_type": "mistral"}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_attention_heads": 32}


def read(data, **changes) -> ModelSpec:
    return read_config({**data, **changes}, "a/config.json", "a")


def refused(data, **changes) -> str:
    with pytest.raises(InputError) as caught:
        read(data, **changes)
    return str(caught.value)


def test_gpt2_and_its_defaults():
    assert read(GPT2) == ModelSpec(
        name="a",
        family="gpt2",
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        ffn=256,
        vocab=100,
        max_positions=1024,
        gated=False,
        activation="gelu_tanh",
        norm="layernorm",
        positions="learned",
        tied_embeddings=True,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        norm_eps=1e-5,
    )


def test_llama_and_its_defaults():
    assert read(LLAMA) == ModelSpec(
        name="a",
        family="llama",
        layers=2,
        hidden=64,
        heads=8,
        kv_heads=8,
        head_dim=8,
        ffn=176,
        vocab=100,
        max_positions=2048,
        gated=True,
        activation="silu",
        norm="rmsnorm",
        positions="rotary",
        tied_embeddings=False,
        attention_bias=False,
        output_bias=False,
        mlp_bias=False,
        norm_eps=1e-6,
        rope_theta=10_000.0,
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


def test_mistral_and_qwen2_differ_from_llama_where_their_classes_do():
    mistral, qwen2 = read(MISTRAL), read(QWEN2)
    assert (mistral.kv_heads, mistral.max_positions, mistral.sliding_window) == (8, 131_072, 4096)
    assert not mistral.attention_bias
    assert (qwen2.kv_heads, qwen2.max_positions, qwen2.sliding_window) == (32, 32_768, None)
    assert qwen2.attention_bias
    assert not qwen2.output_bias
    assert not qwen2.mlp_bias


def test_null_is_not_the_same_as_missing():
    heads_32 = {**MISTRAL, "num_attention_heads": 32}
    assert read(heads_32).kv_heads == 8
    assert read(heads_32, num_key_value_heads=None).kv_heads == 32
    assert read(MISTRAL, sliding_window=None).sliding_window is None
    assert read(GPT2, n_inner=None).ffn == 256
    assert read(GPT2, n_inner=100).ffn == 100
    assert read(LLAMA, head_dim=None).head_dim == 8
    assert read(LLAMA, head_dim=32).query_width == 256


def test_llama_biases_are_two_switches():
    biased = read(LLAMA, attention_bias=True)
    assert biased.attention_bias
    assert biased.output_bias
    assert not biased.mlp_bias
    assert read(LLAMA, mlp_bias=True).mlp_bias


@pytest.mark.parametrize("data", [GPT2, LLAMA, MISTRAL, QWEN2])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_read(data, tied):
    assert read(data, tie_word_embeddings=tied).tied_embeddings is tied


@pytest.mark.parametrize(
    "shape",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 500_000},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_parameters": {"full_attention": {"rope_theta": 5e5}}},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5},
        {"rope_parameters": None, "rope_theta": 5e5},
    ],
)
def test_rope_theta_in_the_shapes_of_transformers_4_and_5(shape):
    assert read(LLAMA, **shape).rope_theta == 5e5


def test_rope_theta_that_differs_by_layer_is_refused():
    by_layer = {"full": {"rope_theta": 1e6}, "sliding": {"rope_theta": 1e4}}
    assert "rope_theta differs by layer" in refused(LLAMA, rope_parameters=by_layer)


def test_the_language_part_of_a_nested_config():
    nested = {"model_type": "llava", "vision_config": {}, "text_config": LLAMA}
    assert read(nested) == read(LLAMA)
    assert read({**nested, "tie_word_embeddings": True}).tied_embeddings
    assert "text_config: 'x' is not a mapping" in refused({"text_config": "x"})


@pytest.mark.parametrize("theirs", ACTIVATIONS)
def test_activations_by_our_names(theirs):
    assert read(LLAMA, hidden_act=theirs).activation == ACTIVATIONS[theirs]
    assert read(GPT2, activation_function=theirs).activation == ACTIVATIONS[theirs]


def test_an_unknown_activation_names_the_supported_ones():
    message = refused(LLAMA, hidden_act="swiglu")
    assert "a/config.json: hidden_act: 'swiglu' is not supported" in message
    assert "gelu_new" in message


@pytest.mark.parametrize("model_type", ["bert", "qwen3_moe", None, ["llama"]])
def test_an_unknown_model_type_names_the_supported_ones_and_the_way_out(model_type):
    message = refused({**LLAMA, "model_type": model_type})
    assert message.startswith("a/config.json: model_type: ")
    assert "gpt2, llama, mistral, qwen2" in message
    assert "model/1 document" in message


@pytest.mark.parametrize("data", [GPT2, LLAMA, MISTRAL, QWEN2])
def test_every_size_is_required(data):
    for key in data.keys() - {"model_type"}:
        message = refused({k: v for k, v in data.items() if k != key})
        assert f"a/config.json: {key}: missing" in message
        assert len(message.splitlines()) == 1


def test_all_problems_are_told_at_once():
    message = refused(
        LLAMA, hidden_size="64", num_hidden_layers=0, mlp_bias="no", rms_norm_eps=-1, vocab_size=1.5
    )
    for said in (
        "hidden_size: '64' is not a whole number",
        "num_hidden_layers: 0 is not a whole number from 1 on",
        "mlp_bias: 'no' is neither true nor false",
        "rms_norm_eps: -1 is not a number above 0",
        "vocab_size: 1.5 is not a whole number",
    ):
        assert said in message
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize("value", [True, "8", 8.0, -8, 0, [8], {}])
def test_sizes_are_whole_numbers_from_one_on(value):
    assert "num_attention_heads: " in refused(LLAMA, num_attention_heads=value)


@pytest.mark.parametrize("theta", [True, "1e4", 0, [1.0], None])
def test_rope_theta_is_a_number(theta):
    assert "rope_theta: " in refused(LLAMA, rope_theta=theta)
    assert "rope_theta: " in refused(LLAMA, rope_parameters={"rope_theta": theta})


def test_heads_that_do_not_fit_are_refused():
    assert "hidden 64 is no multiple of heads 7" in refused(LLAMA, num_attention_heads=7)
    message = refused(LLAMA, num_key_value_heads=3)
    assert "heads=8 is not a multiple of kv_heads=3" in message


def test_windows_by_layer_are_refused():
    assert "use_sliding_window" in refused(QWEN2, use_sliding_window=True)
    assert read(QWEN2, use_sliding_window=False, sliding_window=4096).sliding_window is None


@given(
    st.sampled_from(["gpt2", "llama", "mistral", "qwen2"]),
    st.dictionaries(
        st.sampled_from([*GPT2, *LLAMA, "rope_parameters", "head_dim", "text_config"]),
        st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=3) | st.just({}),
    ),
)
def test_any_config_gives_a_model_or_an_input_error(model_type, data):
    with contextlib.suppress(InputError):
        assert isinstance(read_config({**data, "model_type": model_type}, "c", "c"), ModelSpec)
