"""`meshwright show model`: the JSON contract, its sums, shares of a layout, files and refusals."""

import json
from pathlib import Path

import networkx as nx
import pytest

from planner import model_card
from planner.graph import counts
from planner.spec import catalog, documents
from planner.spec.documents import InputError
from planner.spec.graph import GraphDocument

KEYS = {
    "schema",
    "parameters",
    "active_parameters",
    "embedding_parameters",
    "flops_per_token",
    "layers",
    "operators",
    "collectives",
    "parallelism",
    "weight_bytes",
    "kv_bytes_per_token",
    "activation_bytes",
    "architecture",
}
PUBLISHED = {
    "llama3.1-8b": 8_030_261_248,
    "mixtral-8x7b": 46_702_792_704,
    "gpt2": 124_439_808,
}


def card(name: str, **options: object) -> dict:
    usual = {
        "seq_len": None,
        "micro_batch": 1,
        "dtype": "bf16",
        "task": "train",
        "cached": 0,
        "layout": "",
        "cp_style": "ring",
    }
    model = catalog.find_model(name)
    view, copies = model_card.view_of(model, **(usual | options))
    made = model_card.card(model, view, copies)
    assert json.loads(json.dumps(made)) == made
    return made


@pytest.mark.parametrize("name", catalog.list_models())
def test_every_model_has_a_card_that_adds_up(name: str) -> None:
    made = card(name, seq_len=None if "vit" in name else 64)
    assert set(made) >= KEYS
    assert made["schema"] == "model/1"
    assert made["parameters"] == counts.parameters(catalog.find_model(name))
    assert sum(op["count"] * op["parameters"] for op in made["operators"]) == made["parameters"]
    forward = sum(op["count"] * op["forward_flops"] for op in made["operators"])
    assert made["flops_per_token"]["forward"] == forward / made["seq_len"]
    in_layers = sum(layer["parameters"] for layer in made["layers"])
    assert 0 < in_layers < made["parameters"]
    assert 0 < made["active_parameters"] <= made["parameters"]
    assert model_card.fact_rows(made)
    assert len(model_card.layer_rows(made)) <= len(made["layers"])


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_counts_are_shown_and_equal(name: str, count: int) -> None:
    made = card(name, seq_len=64)
    assert made["parameters"] == made["published_parameters"] == count
    assert {"key": "published", "value": "equal"} in model_card.fact_rows(made)


def test_a_cache_holds_what_each_token_adds() -> None:
    made = card("llama3.1-8b", task="decode", cached=1023)
    per_token = 2 * 32 * 8 * 128 * 2  # keys and values, layers, heads, width, bf16
    assert made["kv_bytes_per_token"] == per_token
    assert made["cache_bytes"] == 1024 * per_token
    assert made["flops_per_token"]["backward"] == 0
    assert card("bert-base", seq_len=64)["kv_bytes_per_token"] == 0


def test_a_layout_shows_one_rank_and_what_it_sends() -> None:
    whole, shard = (
        card("mixtral-8x7b", seq_len=64, layout=text) for text in ("", "tp=2 ep=4 dp=4 zero=3")
    )
    assert shard["rank_parameters"] < whole["parameters"] / 3
    assert {each["axis"] for each in shard["collectives"]} == {"tp", "ep", "dp"}
    assert not whole["collectives"]
    assert model_card.collective_rows(shard)
    experts = [each for each in shard["collectives"] if "experts.weights" in each["name"]]
    assert experts[0]["message_bytes"] == 2 * 8 * 3 * 4096 * 14336 // 4


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    file = tmp_path / "shown.json"
    file.write_text(json.dumps(card("qwen3-30b-a3b", seq_len=64)))
    assert catalog.find_model(str(file)) == catalog.find_model("qwen3-30b-a3b")


def test_the_graph_is_written_as_picture_graphml_and_document(tmp_path: Path) -> None:
    model = catalog.find_model("t5-base")
    view, _ = model_card.view_of(model, 64, 1, "bf16", "train", 0, "", "ring")
    nodes = nx.read_graphml(model_card.write_graph(model, view, tmp_path / "t5.graphml"))
    assert len(nodes) == card("t5-base", seq_len=64)["parallelism"]["operators"]
    assert "t5-base" in model_card.write_graph(model, view, tmp_path / "t5.svg").read_text()
    stored = documents.load(
        GraphDocument, model_card.write_graph(model, view, tmp_path / "t5.json")
    )
    assert stored.totals.parameters == card("t5-base", seq_len=64)["parameters"]
    with pytest.raises(InputError, match=r"'\.png'; write \.graphml, \.svg or \.json"):
        model_card.write_graph(model, view, tmp_path / "t5.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "--dtype 'int4' is not known"),
        ({"task": "chat"}, "--task 'chat' is not known"),
        ({"micro_batch": 0}, "--micro-batch 0: must be at least 1"),
        ({"seq_len": 0}, "--seq-len 0: must be at least 1"),
        ({"cached": 5}, "--cached belongs to --task prefill or decode"),
        ({"layout": "tp=3"}, "tp=3 does not divide heads=32"),
        ({"layout": "ep=2"}, "divide experts, and llama3.1-8b has none"),
        ({"layout": "ep=0"}, "--layout: ep: '0'"),
        ({"layout": "cp=3"}, "does not divide seq_len=2048"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        card("llama3.1-8b", **options)


def test_a_sequence_has_no_more_tokens_than_there_are_positions() -> None:
    with pytest.raises(InputError, match="--seq-len 2048 is more than the 1024 positions"):
        card("gpt2", seq_len=2048)


def test_further_tokens_are_an_option() -> None:
    plain, more = (model_card.find("deepseek-v3", count) for count in (None, 1))
    layer = counts.layer_parameters(plain, 0, 1)
    merge, norms = 2 * 7168 * 7168, 3 * 7168
    assert counts.parameters(more) - counts.parameters(plain) == layer + merge + norms
    with pytest.raises(InputError, match="--mtp 1: a number from 0 on"):
        model_card.find("vit-base", 1)
