"""read_config: every family, both shapes, nested configs, and all problems at once."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from planner.spec.huggingface import read_config
from planner.spec.huggingface.config import READERS
from planner.spec.model import ModelSpec
from tests.spec.huggingface.configs import (
    ALL,
    BERT,
    DEEPSEEK,
    GEMMA3,
    LLAMA,
    T5,
    VIT,
    name_of,
    read,
    refused,
    without,
)


def test_every_supported_family_is_here():
    assert [data["model_type"] for data in ALL] == list(READERS)


@pytest.mark.parametrize("data", ALL, ids=name_of)
def test_a_model_survives_its_document(data):
    spec = read(data)
    assert spec.family == data["model_type"]
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("data", ALL, ids=name_of)
def test_every_size_is_required(data):
    for key in data.keys() - {"model_type"}:
        message = refused(without(data, key))
        assert message.startswith(f"a/config.json: {key}: missing; add this key, or write an ")
        assert len(message.splitlines()) == 1


@pytest.mark.parametrize("data", ALL, ids=name_of)
def test_no_size_may_be_null_but_the_rank_of_the_queries(data):
    for key in data.keys() - {"model_type", "q_lora_rank"}:
        assert f"a/config.json: {key}: missing" in refused(data, **{key: None})


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


def test_a_problem_that_is_met_twice_is_told_once():
    assert len(refused(T5, num_heads="3").splitlines()) == 1
    assert len(refused(VIT, hidden_size=-1).splitlines()) == 1


@pytest.mark.parametrize("value", [True, "8", 8.0, -8, 0, [8], {}])
def test_sizes_are_whole_numbers_from_one_on(value):
    assert "num_attention_heads: " in refused(LLAMA, num_attention_heads=value)


@pytest.mark.parametrize("model_type", ["gpt_neo", None, ["llama"], "qwen3_5"])
def test_an_unknown_model_type_names_the_supported_ones_and_the_way_out(model_type):
    message = refused({**LLAMA, "model_type": model_type})
    assert message.startswith("a/config.json: model_type: ")
    assert "supported are gpt2, gpt_neox, opt, llama, " in message
    assert "gemma3" in message
    assert "write an architecture/1 document instead" in message


def test_a_model_type_near_a_known_one_finds_it():
    assert "did you mean 'mistral'?" in refused({**LLAMA, "model_type": "mistral3"})
    assert "did you mean" not in refused({**LLAMA, "model_type": "zzz"})


def test_the_language_part_of_a_nested_config():
    nested = {"model_type": "llava", "vision_config": {}, "text_config": LLAMA}
    assert read(nested) == read(LLAMA)
    assert read({**nested, "tie_word_embeddings": True}).tied_embeddings
    assert read({**nested, "architectures": ["LlavaForConditionalGeneration"]}) == read(LLAMA)
    assert "text_config: 'x' is not a mapping" in refused({"text_config": "x"})


def test_what_stands_outside_counts():
    inner = {**LLAMA, "tie_word_embeddings": False}
    nested = {"model_type": "llava", "text_config": inner, "tie_word_embeddings": True}
    assert read(nested).tied_embeddings


def test_a_problem_of_a_nested_config_names_its_place():
    message = refused({"model_type": "llava", "text_config": without(LLAMA, "vocab_size")})
    assert message.startswith("a/config.json: text_config.vocab_size: missing")
    message = refused({"model_type": "llava", "text_config": {"model_type": "vicuna"}})
    assert message.startswith("a/config.json: text_config.model_type: 'vicuna' is not supported")


def test_gemma3_is_its_text_part():
    assert read({"model_type": "gemma3", "text_config": GEMMA3}) == read(GEMMA3)
    assert read({"model_type": "gemma3", "text_config": without(GEMMA3, "model_type")}) == read(
        GEMMA3
    )
    assert "text_config: missing" in refused({"model_type": "gemma3"})


@pytest.mark.parametrize("theirs", [{"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("data", [LLAMA, BERT, T5, DEEPSEEK], ids=name_of)
def test_the_precision_of_the_checkpoint_says_nothing(data, theirs):
    assert read(data, **theirs) == read(data)


KEYS = sorted({key for data in ALL for key in data} - {"model_type"})
OTHERS = (
    "rope_parameters",
    "head_dim",
    "text_config",
    "layer_types",
    "architectures",
    "num_labels",
    "id2label",
    "mlp_only_layers",
    "image_size",
    "feed_forward_proj",
    "sliding_window",
    "use_sliding_window",
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.text(max_size=3)
    | st.just({})
    | st.lists(st.integers(-1, 3) | st.text(max_size=2), max_size=3)
)


@given(st.sampled_from(ALL), st.dictionaries(st.sampled_from([*KEYS, *OTHERS]), VALUES))
def test_any_config_gives_a_model_or_an_input_error(data, changes):
    with contextlib.suppress(InputError):
        assert isinstance(read_config({**data, **changes}, "c", "c"), ModelSpec)
