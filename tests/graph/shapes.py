"""Graphs of operators that are made by hand, and drawn ones, for tests of what reads graphs."""

import itertools
import random

import networkx as nx
from hypothesis import strategies as st

from planner.graph.operator import Node, Operator


def op(name: str, kind: str = "linear", flops: int = 0, **dims: int) -> Operator:
    return Operator(name, kind, tuple(sorted(dims.items())), forward_flops=flops, forward_bytes=1)


def layer(prefix: str, width: int = 64, window: int = 0) -> nx.DiGraph:
    """A pre-norm decoder layer: norm, q k v, core, o, residual, norm, up, down, residual."""
    a, f = prefix + "attention.", prefix + "mlp."
    names = [a + n for n in ("norm", "q", "k", "v", "core", "o", "residual")]
    names += [f + n for n in ("norm", "up", "down", "residual")]
    norm, q, k, v, core, o, first, second, up, down, last = (
        op(
            name,
            {"norm": "layernorm", "residual": "residual", "core": "attention"}.get(
                name.rpartition(".")[2], "linear"
            ),
            flops=0 if name.endswith(("norm", "residual")) else 2 * width,
            m=width,
            window=window if name.endswith("core") else 0,
        )
        for name in names
    )
    graph = nx.DiGraph([(norm, q), (norm, k), (norm, v), (q, core), (k, core), (v, core)])
    graph.add_edges_from([(core, o), (o, first), (first, second), (second, up), (up, down)])
    graph.add_edges_from([(down, last), (first, last)])
    return graph


def series(*graphs: nx.DiGraph) -> nx.DiGraph:
    """One after another: the last operator feeds the next entry and, past it, its residual."""
    whole = nx.compose_all(graphs)
    for before, after in itertools.pairwise(graphs):
        (out,) = [n for n in before if not before.succ[n]]
        for node in after:
            if not after.pred[node] or node.name.endswith("attention.residual"):
                whole.add_edge(out, node)
    return whole


def single(name: str, kind: str = "embedding", **dims: int) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_node(op(name, kind, **dims))
    return graph


def decoder(windows: tuple[int, ...]) -> nx.DiGraph:
    """Embedding, one layer per window, head."""
    layers = [layer(f"layer{i}.", window=window) for i, window in enumerate(windows)]
    head = single("head.norm", "layernorm", m=64)
    loss = single("head.loss", "cross_entropy", rows=64)
    return series(single("embedding.tokens", width=64), *layers, head, loss)


def shuffled(graph: nx.DiGraph, seed: int) -> nx.DiGraph:
    """The same graph, its nodes and edges put in in another order."""
    rng = random.Random(seed)
    nodes, edges = list(graph.nodes), list(graph.edges)
    rng.shuffle(nodes)
    rng.shuffle(edges)
    other = nx.DiGraph()
    other.add_nodes_from(nodes)
    other.add_edges_from(edges)
    return other


def renamed(graph: nx.DiGraph, names: dict[Node, str]) -> nx.DiGraph:
    return nx.relabel_nodes(graph, {node: with_(node, name=names[node]) for node in graph})


def with_(node: Node, **changes: object) -> Node:
    fields = {key: getattr(node, key) for key in node.__dataclass_fields__}
    return type(node)(**{**fields, **changes})


@st.composite
def dags(draw: st.DrawFn, least: int = 1, most: int = 9) -> nx.DiGraph:
    """Any graph without cycles; edges point from lower to higher numbers."""
    size = draw(st.integers(least, most))
    kinds = draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))
    flops = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    nodes = [op(f"n.{i}", kinds[i], flops[i]) for i in range(size)]
    pairs = list(itertools.combinations(nodes, 2))
    keep = draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(pair for pair, kept in zip(pairs, keep, strict=True) if kept)
    return graph
