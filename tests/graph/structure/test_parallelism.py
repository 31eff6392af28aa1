"""What a graph allows at once: against brute force and networkx, and what must always hold."""

import itertools
import time

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.graph.operator import Collective, Node
from planner.graph.structure import parallelism
from tests.graph import shapes


def independent(graph: nx.DiGraph, nodes: tuple[Node, ...]) -> bool:
    closure = nx.transitive_closure_dag(graph)
    return not any(closure.has_edge(u, v) for u, v in itertools.permutations(nodes, 2))


def brute_width(graph: nx.DiGraph) -> int:
    return max(len(found) for found in nx.antichains(graph))


@settings(deadline=None)
@given(shapes.dags(most=10), st.integers(0, 3))
def test_width_equals_the_largest_of_all_antichains(graph: nx.DiGraph, seed: int) -> None:
    widest, exact = parallelism.widest_set(shapes.shuffled(graph, seed))
    assert exact
    assert len(widest) == brute_width(graph)
    assert independent(graph, widest)


@settings(deadline=None)
@given(st.lists(shapes.dags(most=6), min_size=2, max_size=4))
def test_width_in_series_is_the_largest_and_side_by_side_the_sum(parts: list[nx.DiGraph]) -> None:
    parts = [
        shapes.renamed(graph, {n: f"{i}.{n.name}" for n in graph}) for i, graph in enumerate(parts)
    ]
    widths = [brute_width(graph) for graph in parts]
    beside = nx.compose_all(parts)
    assert len(parallelism.widest_set(beside)[0]) == sum(widths)
    series = beside.copy()
    for i, (a, b) in enumerate(itertools.pairwise(parts)):
        gate = shapes.op(f"gate{i}")
        series.add_edges_from([(u, gate) for u in a] + [(gate, v) for v in b])
    assert len(parallelism.widest_set(series)[0]) == max(widths)
    pieces = list(parallelism.series_pieces(series))
    assert [n.name for p in pieces for n in p if len(p) == 1 and "gate" in n.name] == [
        f"gate{i}" for i in range(len(parts) - 1)
    ]


@settings(deadline=None)
@given(shapes.dags(most=12), st.sampled_from([parallelism.flops, parallelism.one]))
def test_what_always_holds(graph: nx.DiGraph, weight: parallelism.Weight) -> None:
    found = parallelism.summary(graph, weight)
    assert found.critical <= found.work
    assert 1 <= found.width <= found.operators
    assert max(found.levels) <= found.width
    assert sum(found.levels) == found.operators
    assert len(found.levels) == nx.dag_longest_path_length(graph) + 1
    assert all(graph.has_edge(u, v) for u, v in itertools.pairwise(found.path))
    assert found.average >= 1
    if weight is parallelism.one:
        assert found.average <= found.width


@settings(deadline=None)
@given(shapes.dags(most=12))
def test_the_critical_path_is_the_longest_of_networkx(graph: nx.DiGraph) -> None:
    for weight in (parallelism.flops, parallelism.one):
        ends = nx.DiGraph()
        for node in graph:
            ends.add_edge((node, "in"), (node, "out"), weight=weight(node))
        ends.add_edges_from((((u, "out"), (v, "in")) for u, v in graph.edges), weight=0)
        assert parallelism.summary(graph, weight).critical == nx.dag_longest_path_length(ends)


def test_a_collective_weighs_no_flops_but_is_an_operator() -> None:
    graph = nx.DiGraph(
        [(shapes.op("a", flops=3), Collective("c", "all_reduce", "tp", 8, "forward"))]
    )
    found = parallelism.summary(graph)
    assert (found.work, found.critical, found.width, found.operators) == (3.0, 3.0, 1, 2)


def test_an_empty_graph_has_nothing() -> None:
    found = parallelism.summary(nx.DiGraph())
    assert (found.operators, found.width, found.path, found.average) == (0, 0, (), 1.0)


def test_a_decoder_can_run_q_k_and_v_at_once() -> None:
    found = parallelism.summary(shapes.decoder((0,) * 3))
    assert found.width == 3
    assert {n.name.rpartition(".")[2] for n in found.widest} == {"q", "k", "v"}


def test_width_and_path_are_said_with_equal_layers_once() -> None:
    width, average, path = parallelism.said(parallelism.summary(shapes.decoder((0,) * 80)))
    assert width.startswith("operators that could run at once: 3 of 883 (layer0.attention.")
    assert average == "on average: 1.40 (work over critical path, in FLOPs)"
    assert path.startswith("critical path: 723 operators with 71.4% of the FLOPs: embedding.tokens")
    assert path.endswith(
        " → 80 × (layer.attention.norm → layer.attention.k → layer.attention.core → "
        "layer.attention.o → layer.attention.residual → layer.mlp.norm → layer.mlp.up → "
        "layer.mlp.down → layer.mlp.residual) → head.norm → head.loss"
    )


def test_two_towers_run_side_by_side() -> None:
    towers = [
        shapes.series(*(shapes.layer(f"{name}.layers.{i}.") for i in range(4)))
        for name in ("text", "image")
    ]
    alone, both = parallelism.summary(towers[0]), parallelism.summary(nx.compose_all(towers))
    assert both.width == 2 * alone.width == 6
    assert both.average == 2 * alone.average


def encoder_decoder(layers: int) -> nx.DiGraph:
    """Decoder layers whose cross-attention reads the encoder's last operator."""
    encoder = shapes.series(
        shapes.single("encoder.embedding.tokens"),
        *(shapes.layer(f"encoder.layer{i}.") for i in range(layers)),
        shapes.single("encoder.norm", "layernorm"),
    )
    decoder = shapes.series(
        shapes.single("decoder.embedding.tokens"),
        *(shapes.layer(f"decoder.layer{i}.") for i in range(layers)),
        shapes.single("head.norm", "layernorm"),
    )
    graph = nx.compose(encoder, decoder)
    (memory,) = [n for n in encoder if not encoder.succ[n]]
    for node in list(decoder):
        if node.name.endswith("mlp.norm"):
            keys = shapes.op(node.name.replace("mlp.norm", "cross.k"))
            values = shapes.op(node.name.replace("mlp.norm", "cross.v"))
            graph.add_edges_from([(memory, keys), (memory, values), (keys, node), (values, node)])
    return graph


def test_the_encoder_runs_beside_the_decoder() -> None:
    graph = encoder_decoder(3)
    found = parallelism.summary(graph)
    assert found.exact
    assert found.width == brute_width(graph)
    assert found.width >= 2 * 3  # keys and values of all decoder layers wait for the encoder only


def test_a_piece_that_is_too_large_says_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelism, "LARGEST", 4)
    graph = encoder_decoder(2)
    found = parallelism.summary(graph)
    assert not found.exact
    assert found.width <= brute_width(graph)
    assert independent(graph, found.widest)


@pytest.mark.timing
def test_126_layers_and_a_large_encoder_decoder_take_less_than_a_second() -> None:
    for graph in (shapes.decoder((0,) * 126), encoder_decoder(32)):
        start = time.perf_counter()
        parallelism.summary(graph)
        assert time.perf_counter() - start < 1.0
