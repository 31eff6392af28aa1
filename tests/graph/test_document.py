"""Graphs and documents are two forms of one thing, and folding layers loses nothing."""

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.graph import counts, document, transformer
from planner.graph.structure import repetition
from planner.graph.view import RankView
from planner.spec import catalog
from planner.spec.documents import InputError, load, save
from planner.spec.graph import GraphDocument, GraphOperator, Totals

MODELS = ("gpt2", "llama3.1-8b", "bert-base", "flan-t5-xxl", "mixtral-8x7b", "deepseek-v3")


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_of_a_spec_survives_the_document(name, tmp_path):
    spec = catalog.find_model(name)
    graph = transformer.model_graph(spec, RankView(1, 32))
    stored = document.from_graph(graph, name)
    again = document.to_graph(load(GraphDocument, save(stored, tmp_path / "graph.json")))
    assert set(again.nodes) == set(graph.nodes)
    assert set(again.edges) == set(graph.edges)
    assert stored.totals.parameters == counts.parameters(spec)
    assert stored.totals.forward_flops == counts.forward_flops(spec, 1, 32)
    assert sum(layer.count for layer in stored.layers) == spec.layers


@pytest.mark.parametrize("name", ["llama3.1-405b", "gpt3-175b"])
def test_a_deep_model_is_as_small_as_its_distinct_layers(name):
    graph = transformer.model_graph(catalog.find_model(name), RankView(1, 32))
    stored = document.from_graph(graph, name)
    assert len(stored.layers) == 1
    held = len(stored.operators) + len(stored.layers[0].operators)
    assert held < 25 < len(graph)


def test_a_sharded_view_is_refused():
    graph = transformer.model_graph(catalog.find_model("gpt2"), RankView(1, 32, tp=2))
    with pytest.raises(InputError, match="collective"):
        document.from_graph(graph, "gpt2")


def operator(name: str, kind: str = "linear", **facts) -> GraphOperator:
    path, _, _ = name.rpartition(":")
    return GraphOperator(name=name, path=path, kind=kind, **facts)


paths = st.lists(
    st.sampled_from(["layers.0", "layers.1", "layers.2", "layers.10", "block@1", "block", "head"]),
    max_size=12,
)
kinds = st.sampled_from(["linear", "softmax"])


@given(places=paths, data=st.data())
def test_folding_keeps_every_operator_and_edge(places, data):
    operators = [
        operator(f"{path}.m:{number}", data.draw(kinds), parameters=data.draw(st.integers(0, 2)))
        for number, path in enumerate(places)
    ]
    size = range(len(operators))
    pairs = [(a, b) for a in size for b in size if a < b]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    folded = repetition.fold(operators, edges)
    stored = GraphDocument(
        name="drawn",
        totals=Totals.of(operators),
        operators=folded.operators,
        layers=folded.layers,
        edges=folded.edges,
    )
    flat = stored.flat_operators()
    assert sorted(flat, key=lambda op: op.name) == sorted(operators, key=lambda op: op.name)
    named = {(flat[a].name, flat[b].name) for a, b in stored.flat_edges()}
    assert named == {(operators[a].name, operators[b].name) for a, b in edges}


def layers_found(*names: str, **facts) -> list[tuple[str, tuple[str, ...]]]:
    operators = [operator(name, **facts) for name in names]
    return [(layer.container, layer.prefixes) for layer in repetition.fold(operators, []).layers]


def test_the_outermost_repetition_is_taken():
    names = [
        f"model.layers.{i}.experts.{j}:{k}" for i in range(2) for j in range(3) for k in (0, 1)
    ]
    assert layers_found(*names) == [("model.layers.*", ("model.layers.0", "model.layers.1"))]


def test_what_repeats_deeper_is_found_where_the_outside_differs():
    names = ["s.0.b.0:0", "s.0.b.0:1", "s.0.b.1:0", "s.0.b.1:1", "s.1.c:0", "s.1.d:0"]
    assert layers_found(*names) == [("s.0.b.*", ("s.0.b.0", "s.0.b.1"))]


def test_calls_of_one_module_are_layers_and_single_operators_are_not():
    names = ["block.a:0", "block.b:0", "block@1.a:0", "block@1.b:0", "x.0:0", "x.1:0"]
    assert layers_found(*names) == [("block*", ("block", "block@1"))]


def test_layers_that_differ_in_bookkeeping_share_their_structure():
    operators = [
        operator(f"h.{i}.{part}:0", parameters=0 if i else 5) for i in range(3) for part in "ab"
    ]
    first, others = repetition.fold(operators, [(0, 1), (2, 3), (4, 5), (1, 2), (3, 4)]).layers
    assert first.structure == others.structure
    assert (first.count, others.count) == (1, 2)
    different = [operator(f"h.{i}.{part}:0", dims={"m": i}) for i in range(3) for part in "ab"]
    assert repetition.fold(different, []).layers == ()


def test_a_graph_of_a_document_is_the_same_shape():
    spec = catalog.find_model("gpt2")
    chain = transformer.layer_graph(spec, RankView(1, 8), "layer0.")
    again = document.to_graph(document.from_graph(chain, "layer"))
    assert nx.is_isomorphic(chain, again)
    assert document.from_graph(again, "layer") == document.from_graph(chain, "layer")
