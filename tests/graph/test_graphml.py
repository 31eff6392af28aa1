"""GraphML: what networkx reads back is what was written."""

import io

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.graph import graphml, transformer
from planner.graph.operator import Collective, Operator
from planner.graph.structure.fingerprint import facts
from planner.graph.view import RankView
from tests.examples import gpt2_like, llama_like
from tests.graph import shapes


def read(text: str) -> nx.DiGraph:
    return nx.read_graphml(io.BytesIO(text.encode()))


@settings(deadline=None)
@given(shapes.dags(), st.integers(0, 3))
def test_nodes_and_edges_come_back(graph: nx.DiGraph, seed: int) -> None:
    text = graphml.graphml(graph)
    back = read(text)
    assert set(back) == {node.name for node in graph}
    assert set(back.edges) == {(u.name, v.name) for u, v in graph.edges}
    assert graphml.graphml(shapes.shuffled(graph, seed)) == text


def test_every_fact_comes_back_in_its_own_type() -> None:
    for model in (gpt2_like(), llama_like()):
        graph = transformer.model_graph(model, RankView(2, 16, tp=2))
        back = read(graphml.graphml(graph, model.name))
        assert back.graph["name"] == model.name
        for node in graph:
            found = back.nodes[node.name]
            for key, value in facts(node):
                if key not in ("dims", "splits"):
                    assert found[key] == value
                    assert type(found[key]) is type(value)
            if isinstance(node, Operator):
                assert {k: v for k, v in found.items() if k.startswith("dim_")} == {
                    f"dim_{dim}": size for dim, size in node.dims
                }
                for split in node.splits:
                    assert found[f"split_{split.dim}"] == split.axis
                    assert found[f"meaning_{split.dim}"] == split.meaning


def test_blocks_and_collectives_say_what_they_are() -> None:
    graph = transformer.model_graph(llama_like(), RankView(2, 16, tp=2))
    back = read(graphml.graphml(graph))
    layers = {found["signature"] for found in back.nodes.values() if found["block"] == "layer0"}
    assert layers == {f["signature"] for f in back.nodes.values() if f["block"] == "layer1"}
    assert len(layers) == 1
    names = {node.name for node in graph if isinstance(node, Collective)}
    assert names
    assert names == {name for name, f in back.nodes.items() if f["kind"] == "collective"}


def test_names_are_escaped() -> None:
    graph = nx.DiGraph([(shapes.op('a<b>&"c".x'), shapes.op("d.é"))])
    assert set(read(graphml.graphml(graph))) == {'a<b>&"c".x', "d.é"}
