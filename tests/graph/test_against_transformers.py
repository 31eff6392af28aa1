"""Oracle: transformers' own models on the meta device have exactly the parameters we count.

A configuration is made and written as config.json by transformers, and then read twice: by
transformers, which builds the model, and by us, who count; for every model of the catalog and for
drawn ones, in the shape of transformers 5 and in that of 4.

Where transformers 5.23 keeps parameters that compute nothing, the difference is asserted.
"""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.graph import counts
from planner.spec import catalog, documents
from planner.spec.huggingface import read_config
from planner.spec.huggingface.config import READERS
from planner.spec.model import ModelSpec
from tests.graph.families import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

INDEX = documents.read_mapping(catalog.FOLDER / "models" / "index.yaml")
DRAWN = {"deadline": None, "suppress_health_check": list(HealthCheck)}
T5 = {"model_type": "t5", "vocab_size": 50, "d_model": 12, "d_ff": 7, "num_layers": 2}
BERT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 7,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "vocab_size": 50,
    "hidden_size": 12,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 7,
}


def written(model_type: str, name: str, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A configuration and its config.json."""
    made = transformers.AutoConfig.for_model(model_type, **kwargs)
    made.architectures = [name]
    return made, json.loads(made.to_json_string())


def counted(data: dict[str, Any], name: str) -> int:
    """Parameters of the class `name` that transformers makes of a config.json, tied ones once."""
    cls = getattr(transformers, name)
    with torch.device("meta"):
        model = cls._from_config(cls.config_class.from_dict(data))
    return sum(parameter.numel() for parameter in model.parameters())


def older(data: dict[str, Any]) -> dict[str, Any]:
    """The same config.json as transformers 4 would have written it."""
    data = {**data, "transformers_version": "4.40.0"}
    data["torch_dtype"] = data.pop("dtype", "float32")
    rope = data.pop("rope_parameters", None) or {}
    if "full_attention" in rope:
        data["rope_theta"] = rope["full_attention"]["rope_theta"]
        data["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    elif data["model_type"] == "gpt_neox":
        data["rotary_emb_base"] = rope["rope_theta"]
        data["rotary_pct"] = rope["partial_rotary_factor"]
    elif rope:
        data["rope_theta"] = rope["rope_theta"]
        data["partial_rotary_factor"] = rope.get("partial_rotary_factor", 1.0)
    if data["model_type"] == "qwen3_moe":
        data["num_experts"] = data.pop("num_local_experts")
    return data


def read(data: dict[str, Any]) -> ModelSpec:
    return read_config(data, "config.json", "drawn")


def check(model_type: str, data: st.DataObject) -> None:
    name, kwargs = data.draw(FAMILIES[model_type])
    made, dumped = written(model_type, name, kwargs)
    spec = read(dumped)
    assert counts.parameters(spec) == counted(dumped, name)
    assert read(made.to_dict()) == spec
    assert read(older(dumped)) == spec
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_every_supported_family_is_drawn() -> None:
    assert FAMILIES.keys() == READERS.keys()


@pytest.mark.parametrize("model_type", FAMILIES)
@given(data=st.data())
@settings(max_examples=20, **DRAWN)
def test_drawn_parameters_equal_transformers(model_type: str, data: st.DataObject) -> None:
    check(model_type, data)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", FAMILIES)
@given(data=st.data())
@settings(max_examples=500, **DRAWN)
def test_many_drawn_parameters_equal_transformers(model_type: str, data: st.DataObject) -> None:
    check(model_type, data)


def hf_models() -> list[str]:
    """Catalog models that are a config.json (others are architectures of no known type)."""
    names = catalog.list_models()
    found = [name for name in names if "model_type" in read_file(name)]
    assert set(names) - set(found) <= {n for n in names if n.startswith("nemotron")}
    return found


def read_file(name: str) -> dict[str, Any]:
    return json.loads((catalog.FOLDER / "models" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", hf_models())
def test_catalog_parameters_equal_transformers(name: str) -> None:
    data, model = read_file(name), catalog.find_model(name)
    cls = data["architectures"][0]
    if data["model_type"] == "gemma3":  # only the text part is read
        data, cls = data["text_config"], "Gemma3ForCausalLM"
    head = model.vocab * model.hidden if name == "flan-t5-xxl" else 0
    assert counts.parameters(model) == counted(data, cls) + head


@pytest.mark.parametrize(
    "name", [n for n, facts in INDEX.items() if "published_parameters" in facts]
)
def test_catalog_parameters_equal_the_published_count(name: str) -> None:
    facts, model = INDEX[name], catalog.find_model(name)
    assert model.published_parameters == facts["published_parameters"]
    assert counts.parameters(model) == model.published_parameters - facts.get(
        "published_buffers", 0
    )


def test_t5_with_a_head_of_its_own_as_its_checkpoints_have() -> None:
    """transformers 5.23 builds T5 tied whatever tie_word_embeddings says."""
    name = "T5ForConditionalGeneration"
    untied = {**T5, "architectures": [name], "num_heads": 3, "tie_word_embeddings": False}
    spec = read(untied)
    assert not spec.tied_embeddings
    assert counts.parameters(spec) == counted(untied, name) + 50 * 12


@pytest.mark.parametrize(("model_type", "prefix"), [("bert", "Bert"), ("roberta", "Roberta")])
def test_an_untied_masked_language_model_has_a_second_bias_that_is_not_used(
    model_type: str, prefix: str
) -> None:
    name = f"{prefix}ForMaskedLM"
    data = {**BERT, "model_type": model_type, "architectures": [name]}
    untied = {**data, "tie_word_embeddings": False}
    assert counts.parameters(read(data)) == counted(data, name)
    assert counts.parameters(read(untied)) == counted(untied, name) - 50


@pytest.mark.parametrize("tied", [True, False])
def test_the_text_part_of_gemma3(tied: bool) -> None:
    made = transformers.Gemma3Config(text_config=GEMMA3, tie_word_embeddings=tied)
    made.architectures = ["Gemma3ForConditionalGeneration"]
    text = {**GEMMA3, "tie_word_embeddings": tied}
    spec = read(json.loads(made.to_json_string()))
    assert spec == read(text)
    assert counts.parameters(spec) == counted(text, "Gemma3ForCausalLM")


def test_gemma3_leaves_out_the_defaults_of_its_class() -> None:
    text = {"model_type": "gemma3_text", "num_hidden_layers": 2}
    spec = read({"model_type": "gemma3", "text_config": text})
    assert counts.parameters(spec) == counted(text, "Gemma3ForCausalLM")


def test_deepseek_predicts_further_tokens_only_if_the_document_says_so() -> None:
    """The published checkpoint holds one such layer, with copies of table and head in it."""
    model = catalog.find_model("deepseek-v3")
    assert model.head.mtp_layers == 0
    more = model.replace(head=model.head.replace(mtp_layers=1))
    added = counts.parameters(more) - counts.parameters(model)
    h, experts = model.hidden, 256
    kind = len(model.main.kinds) - 1
    assert added == counts.layer_parameters(model, 0, kind) + 2 * h * h + 3 * h
    whole = model.published_parameters + added + experts + 2 * model.vocab * h
    assert whole == 684_489_845_504
