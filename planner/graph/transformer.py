"""Transformers as graphs of operators: embeddings, layers, the encoder's end, the head.

A decoder-only or encoder-only model is a chain. Encoder and decoder are two chains, joined by the
edges from the encoder's output to each cross-attention; before that they are independent. Every
function gives what one rank sees (RankView), collectives included.

What each operator keeps for its backward stands in elements.py and attention.py. Summed for MHA,
f = 4h and no dropout a pre-norm layer keeps 16*rows*h elements, 32*s*b*h bytes in 16 bits
(Korthikanti et al. 2022 count 34 with two dropout masks). Each tensor is charged once, to the
operator that keeps it first.
"""

import itertools

import networkx as nx

from planner.graph.operator import Collective, Node, Operator
from planner.graph.parts import assembly, elements
from planner.graph.parts.assembly import Assembly
from planner.graph.parts.embedding import embedding
from planner.graph.parts.head import head
from planner.graph.parts.layer import layer
from planner.graph.view import RankView, encoder_view
from planner.spec.model import ModelSpec
from planner.spec.profile import Phase


def model_graph(model: ModelSpec, view: RankView) -> nx.DiGraph:
    """The whole model on one rank, tied and shared tables held once.

    Decoding runs no encoder: what the decoder needs of it is in the cache.
    """
    chains = [
        _chain(model, view, index)
        for index in range(len(model.stacks))
        if not (view.task == "decode" and model.encoder is not None and index == 0)
    ]
    graph = nx.compose_all([part for chain in chains for part in chain])
    for before, after in itertools.chain.from_iterable(map(itertools.pairwise, chains)):
        assembly.join(graph, before, after)
    for chain in chains:
        assembly.share_biases(graph, chain)
    if len(chains) == 2:
        readers = [node for part in chains[1] for node in assembly.memory_readers(part)]
        ends = assembly.sinks(chains[0][-1])
        graph.add_edges_from((end, reader) for end in ends for reader in readers)
    return graph


def _chain(model: ModelSpec, view: RankView, stack: int) -> list[nx.DiGraph]:
    prefix = stack_prefix(model, stack)
    parts = [embedding_graph(model, view, stack)]
    parts += [
        layer_graph(model, view, f"{prefix}layer{index}.", stack, kind)
        for index, kind in enumerate(model.stacks[stack].order)
    ]
    last = stack == len(model.stacks) - 1
    parts.append(head_graph(model, view, True) if last else encoder_end_graph(model, view))
    return [part for part in parts if len(part)]


def stack_prefix(model: ModelSpec, stack: int) -> str:
    """How names of a stack's nodes begin: `encoder.` or `decoder.` where there are two."""
    return f"{model.stacks[stack].name}." if len(model.stacks) == 2 else ""


def stack_view(model: ModelSpec, view: RankView, stack: int) -> RankView:
    """The view of one stack: an encoder that a decoder reads has the source's tokens."""
    return encoder_view(model, view) if model.encoder is not None and stack == 0 else view


def embedding_graph(model: ModelSpec, view: RankView, stack: int = 0) -> nx.DiGraph:
    """What stands before the first layer of a stack."""
    made = Assembly(model, stack_view(model, view, stack))
    embedding(made, model.stacks[stack], stack_prefix(model, stack) + "embedding.")
    return made.graph


def layer_graph(
    model: ModelSpec, view: RankView, prefix: str = "layer.", stack: int = 0, kind: int = 0
) -> nx.DiGraph:
    """One layer of a kind as one rank sees it."""
    made = Assembly(model, stack_view(model, view, stack))
    layer(made, model.stacks[stack].kinds[kind], prefix, [])
    return made.graph


def encoder_end_graph(model: ModelSpec, view: RankView) -> nx.DiGraph:
    """The last norm of an encoder and its output, which every decoder layer reads and keeps."""
    made = Assembly(model, stack_view(model, view, 0))
    flow: list[Node] = []
    if model.stacks[0].final_norm:
        flow = made.add(flow, elements.norm(model, made.view, "encoder.norm"))
    rows, hidden = made.view.outer_rows, model.hidden
    kept = rows * hidden * made.view.element_bytes
    dims = elements.dims_of(rows=rows, width=hidden)
    made.add(flow, Operator(name="encoder.output", kind="memory", dims=dims, saved_bytes=kept))
    return made.graph


def head_graph(model: ModelSpec, view: RankView, holds_embedding: bool) -> nx.DiGraph:
    """What stands behind the last layer.

    holds_embedding: the embedding sits on the same rank, so tied weights are not held twice.
    """
    made = Assembly(model, stack_view(model, view, len(model.stacks) - 1))
    head(made, holds_embedding, "head.", [])
    return made.graph


def operators(graph: nx.DiGraph) -> list[Operator]:
    """The operators of a graph, in topological order."""
    return [node for node in nx.topological_sort(graph) if isinstance(node, Operator)]


def collectives(graph: nx.DiGraph, phase: Phase | None = None) -> list[Collective]:
    """The collectives of a graph, of one phase or of both."""
    found: list[Node] = list(nx.topological_sort(graph))
    return [
        node
        for node in found
        if isinstance(node, Collective) and (phase is None or node.phase == phase)
    ]
