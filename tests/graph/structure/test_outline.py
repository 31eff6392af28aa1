"""Laws of structural hashing and of finding the layers that repeat."""

import dataclasses
import itertools
import os
import random
import subprocess
import sys

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.graph.operator import Collective, Operator
from planner.graph.structure import fingerprint, outline, runs, sequence
from tests.graph import shapes

FACTS = [field.name for field in dataclasses.fields(Operator) if field.name != "name"]


@settings(deadline=None)
@given(shapes.dags(), st.randoms(use_true_random=False))
def test_relabelling_and_order_keep_the_signature(graph: nx.DiGraph, rng: random.Random) -> None:
    names = [f"x{i}" for i in range(len(graph))]
    rng.shuffle(names)
    other = shapes.renamed(graph, dict(zip(graph, names, strict=True)))
    shuffled = shapes.shuffled(other, rng.randrange(100))
    assert fingerprint.signature(shuffled) == fingerprint.signature(graph)


@pytest.mark.parametrize("fact", FACTS)
@settings(deadline=None)
@given(graph=shapes.dags(), place=st.integers(0, 8))
def test_any_changed_fact_changes_the_signature(fact: str, graph: nx.DiGraph, place: int) -> None:
    node = list(graph)[place % len(graph)]
    changed = shapes.with_(node, **{fact: another(getattr(node, fact))})
    other = nx.relabel_nodes(graph, {node: changed})
    assert fingerprint.signature(other) != fingerprint.signature(graph)


def another(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}2" if isinstance(value, str) else (("m", 77),)


@settings(deadline=None)
@given(shapes.dags(least=2))
def test_any_added_or_removed_edge_changes_the_signature(graph: nx.DiGraph) -> None:
    for u, v in itertools.combinations(list(graph), 2):
        other = graph.copy()
        if graph.has_edge(u, v):
            other.remove_edge(u, v)
        else:
            other.add_edge(u, v)
        assert fingerprint.signature(other) != fingerprint.signature(graph)


def test_graphs_of_five_have_equal_signatures_only_if_isomorphic() -> None:
    """All 1024 of them, of operators that are all alike."""
    nodes = [shapes.op(str(i)) for i in range(5)]
    first: dict[str, nx.DiGraph] = {}
    for kept in itertools.product((False, True), repeat=10):
        graph = nx.DiGraph()
        graph.add_nodes_from(nodes)
        graph.add_edges_from(itertools.compress(itertools.combinations(nodes, 2), kept))
        other = first.setdefault(fingerprint.signature(graph), graph)
        assert nx.is_isomorphic(graph, other)
    assert len(first) == 302  # unlabelled graphs of 5 nodes without cycles (OEIS A003087)


def test_an_operator_is_not_a_collective() -> None:
    graphs = [nx.DiGraph(), nx.DiGraph()]
    graphs[0].add_node(Collective("c", "all_reduce", "tp", 8, "forward"))
    graphs[1].add_node(Collective("c", "all_reduce", "dp", 8, "forward"))
    assert len({fingerprint.signature(g) for g in graphs}) == 2


def test_the_signature_is_the_same_in_every_process() -> None:
    code = (
        "from planner.graph.structure import fingerprint\nfrom tests.graph import shapes\n"
        "print(fingerprint.signature(shapes.decoder((0, 1))))"
    )
    here = fingerprint.signature(shapes.decoder((0, 1)))
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert done.stdout.strip() == here, done.stderr


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 5))
def test_equal_layers_are_one_distinct_block(layers: int, seed: int) -> None:
    graph = shapes.shuffled(shapes.decoder((0,) * layers), seed)
    found = outline.distinct(outline.blocks(graph))
    assert [(d.block.name, d.count) for d in found] == [
        ("embedding", 1),
        ("layer0", layers),
        ("head", 1),
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=20), st.integers(0, 5))
def test_the_outline_unrolls_to_the_blocks(windows: list[int], seed: int) -> None:
    graph = shapes.shuffled(shapes.decoder(tuple(windows)), seed)
    found = outline.blocks(graph)
    assert [block.name for block in found] == [
        "embedding",
        *(f"layer{i}" for i in range(len(windows))),
        "head",
    ]
    unrolled = [mark for part in outline.outline(graph) for mark in signatures(part)]
    assert unrolled == [block.signature for block in found]
    assert {n for b in found for n in b.nodes} == set(graph)


def signatures(part: outline.Part) -> list[str]:
    inner = [mark for p in part.parts for mark in signatures(p)] or [part.members[0].signature]
    assert len(part.members) % part.count == 0
    return inner * part.count


def test_a_pattern_of_layers_is_said_once() -> None:
    graph = shapes.decoder((1, 1, 1, 1, 1, 0) * 4 + (1, 1))
    first, period, rest, last = outline.outline(graph)
    assert [len(p.members) for p in (first, rest, last)] == [1, 2, 1]
    assert (period.count, [p.count for p in period.parts]) == (4, [5, 1])
    assert [b.index for b in period.parts[1].members] == [5, 11, 17, 23]


def test_dense_layers_then_sparse_ones() -> None:
    parts = outline.outline(shapes.decoder((1,) * 3 + (0,) * 58))
    assert [(p.count, p.members[0].name, p.members[-1].name) for p in parts] == [
        (1, "embedding", "embedding"),
        (3, "layer0", "layer2"),
        (58, "layer3", "layer60"),
        (1, "head", "head"),
    ]


def test_equal_towers_are_not_one_run() -> None:
    towers = [
        shapes.series(*(shapes.layer(f"{name}.layers.{i}.") for i in range(4)))
        for name in ("text.model", "image.model")
    ]
    parts = outline.outline(nx.compose(*towers))
    assert [(p.count, p.members[0].tower) for p in parts] == [(4, "image.model"), (4, "text.model")]


def test_a_group_around_others_is_cut() -> None:
    graph = shapes.series(
        shapes.single("model.embed"),
        *(shapes.layer(f"model.layers.{i}.") for i in range(3)),
        shapes.single("model.norm", "layernorm"),
    )
    names = [(b.name, b.tower) for b in outline.blocks(graph)]
    layers = [(f"model.layers.{i}", "model") for i in range(3)]
    assert names == [("model", "model"), *layers, ("model", "model")]


def test_names_of_a_captured_graph_are_read() -> None:
    """`path:number` is an operator that a module runs itself."""
    graph = shapes.series(
        shapes.single("model.embed_tokens:0"),
        *(shapes.layer(f"model.layers.{i}.") for i in range(3)),
        shapes.single("model.norm:0", "layernorm"),
        shapes.single("lm_head:0", "linear"),
    )
    names = {n: n.name.replace(".residual", ".residual:1") for n in graph}
    names |= {n: f"model.layers.{n.name[13]}:0" for n in graph if n.name.endswith("mlp.residual")}
    table = shapes.op("model:3", "table")
    captured = shapes.renamed(graph, names)
    captured.add_edges_from((table, n) for n in list(captured) if n.name.endswith(".q"))
    parts = outline.outline(captured)
    assert [(p.count, p.members[0].name, p.members[0].tower) for p in parts] == [
        (1, "model", "model"),
        (3, "model.layers.0", "model"),
        (1, "model", "model"),
        (1, "lm_head", ""),
    ]
    block = parts[1].members[2]
    assert {block.local(n) for n in block.nodes} >= {"0", "attention.q", "attention.residual:1"}


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(0, 5), shapes.dags(least=3, most=6))
def test_layers_without_names_are_found(layers: int, seed: int, body: nx.DiGraph) -> None:
    """Any block whose operators all differ, in series, behind and before something else."""
    names = list(body)
    body.add_edges_from((names[0], n) for n in names[1:])
    body.add_edges_from((n, names[-1]) for n in names[:-1])
    copies = [numbered(body, i) for i in range(layers)]
    graph = series(shapes.single("first"), *copies, shapes.single("last", "loss"))
    hidden = shapes.renamed(graph, {node: f"n_{i}" for i, node in enumerate(graph)})
    found = outline.distinct(outline.blocks(shapes.shuffled(hidden, seed)))
    assert [d.count for d in found] == [1, layers, 1]
    assert len(found[1].block.nodes) == len(body)


def numbered(body: nx.DiGraph, copy: int) -> nx.DiGraph:
    """A copy of the body in which every operator's dims differ from all others of the body."""
    return nx.relabel_nodes(
        body,
        {
            n: shapes.with_(n, name=f"{copy}/{i}", dims=(("m", i),), kind="x")
            for i, n in enumerate(body)
        },
    )


def series(*graphs: nx.DiGraph) -> nx.DiGraph:
    whole = nx.compose_all(graphs)
    for before, after in itertools.pairwise(graphs):
        (out,) = [n for n in before if not before.succ[n]]
        (entry,) = [n for n in after if not after.pred[n]]
        whole.add_edge(out, entry)
    return whole


@pytest.mark.parametrize("windows", [(0,) * 5, (1, 1, 0) * 4, (1,) * 3 + (0,) * 6])
def test_names_or_not_the_layers_are_the_same(windows: tuple[int, ...]) -> None:
    graph = shapes.decoder(windows)
    hidden = shapes.renamed(graph, {node: f"n_{i}" for i, node in enumerate(graph)})
    named = [part for part in outline.outline(graph) if part.count > 1]
    found = [part for part in outline.outline(hidden) if part.count > 1]
    assert [p.count for p in found] == [p.count for p in named]
    for a, b in zip(found, named, strict=True):
        assert sum(len(m.nodes) for m in a.members) == sum(len(m.nodes) for m in b.members)
        assert a.members[0].nodes[0].kind == "layernorm"


def test_a_side_input_of_all_layers_does_not_hide_them() -> None:
    """Rotary tables read by every layer, and a cache that every layer writes."""
    graph = shapes.decoder((0,) * 6)
    table = shapes.op("rotary.table", "table")
    for node in list(graph):
        if node.name.endswith(".q"):
            graph.add_edge(table, node)
        if node.name.endswith(".k"):
            graph.add_edge(node, shapes.op(node.name + "x", "cache"))
    hidden = shapes.renamed(graph, {node: f"n_{i}" for i, node in enumerate(graph)})
    (layers,) = [p for p in outline.outline(shapes.shuffled(hidden, 1)) if p.count > 1]
    assert layers.count == 6
    assert len(layers.members[0].nodes) == 12


@settings(deadline=None)
@given(shapes.dags())
def test_the_canonical_order_is_one_topological_order(graph: nx.DiGraph) -> None:
    order = sequence.canonical_order(graph)
    place = {node: i for i, node in enumerate(order)}
    assert len(place) == len(order) == len(graph)
    assert all(place[u] < place[v] for u, v in graph.edges)
    assert sequence.canonical_order(shapes.shuffled(graph, 1)) == order


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=24))
def test_runs_cover_the_sequence_and_save_as_much_as_any_run(tokens: list[int]) -> None:
    found = runs.runs(tokens)
    covered = [t for r in found for t in tokens[r.start : r.start + r.period] * r.count]
    assert covered == tokens
    best = max((r.saved for r in found), default=0)
    three = [(s, p) for p in range(1, 9) for s in range(len(tokens)) if copies(tokens, s, p) >= 3]
    assert all(best >= (copies(tokens, s, p) - 1) * p for s, p in three)


def copies(tokens: list[int], start: int, period: int) -> int:
    count = 1
    piece = tokens[start : start + period]
    while len(piece) == period and (
        tokens[start + count * period : start + (count + 1) * period] == piece
    ):
        count += 1
    return count


def test_126_layers_hash_no_more_than_their_distinct_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    real = fingerprint.signature
    monkeypatch.setattr(fingerprint, "signature", lambda g: hashed.append(len(g)) or real(g))
    outline.blocks(shapes.decoder((0,) * 126))
    assert hashed == [1, 11, 2]
