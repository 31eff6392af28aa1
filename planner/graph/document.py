"""Document: graphs of operators to graph documents and back.

A graph of a ModelSpec and a captured one become the same document and the same kind of
networkx graph, so one analysis serves both. What only one of them knows (splits of a layout;
shapes and targets of torch) is empty in the other.
"""

import dataclasses
from typing import Any

import networkx as nx

from planner.graph.operator import Collective, Operator, Split
from planner.graph.structure import repetition
from planner.spec.documents import InputError
from planner.spec.graph import GraphDocument, GraphOperator, GraphSplit, Totals

_ALIKE = {f.name for f in dataclasses.fields(Operator)} & set(GraphOperator.model_fields) - {
    "dims",
    "splits",
}
"""Facts that both kinds of operators hold in the same form."""


def to_graph(document: GraphDocument) -> nx.DiGraph:
    """The document's operators, every layer as often as it stands, with all edges."""
    nodes = [_operator(stored) for stored in document.flat_operators()]
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from((nodes[a], nodes[b]) for a, b in document.flat_edges())
    return graph


def from_graph(graph: nx.DiGraph, name: str) -> GraphDocument:
    """The document of a graph of operators. Raises InputError for a sharded view."""
    sharded = next((node for node in graph if isinstance(node, Collective)), None)
    if sharded is not None:
        raise InputError(
            f"graph {name}: holds the collective {sharded.name}; a graph document describes a "
            f"whole model, so make the graph without tp, cp and ep"
        )
    given = {node: number for number, node in enumerate(graph)}
    nodes = list(nx.lexicographical_topological_sort(graph, key=given.__getitem__))
    place = {node: number for number, node in enumerate(nodes)}
    stored = [_stored(node) for node in nodes]
    folded = repetition.fold(stored, sorted((place[a], place[b]) for a, b in graph.edges))
    return GraphDocument(
        name=name,
        totals=Totals.of(stored),
        operators=folded.operators,
        layers=folded.layers,
        edges=folded.edges,
    )


def _operator(stored: GraphOperator) -> Operator:
    facts: dict[str, Any] = {name: getattr(stored, name) for name in _ALIKE}
    splits = tuple(Split(**dict(split)) for split in stored.splits)
    trainable = stored.frozen_parameters < stored.parameters or not stored.parameters
    dims = tuple(sorted(stored.dims.items()))
    return Operator(**facts, dims=dims, splits=splits, trainable=trainable)


def _stored(operator: Operator) -> GraphOperator:
    facts: dict[str, Any] = {name: getattr(operator, name) for name in _ALIKE}
    return GraphOperator(
        **facts,
        path=operator.name.rpartition(".")[0],
        dims=dict(operator.dims),
        frozen_parameters=0 if operator.trainable else operator.parameters,
        splits=tuple(GraphSplit(**dataclasses.asdict(split)) for split in operator.splits),
    )
