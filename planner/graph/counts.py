"""Counts of a whole model: parameters and FLOPs, without building a graph per layer.

Layers of one kind are counted once and multiplied. Tables that are tied or shared count once.
Training FLOPs of a step are the sum over operators of forward and backward matrix products;
model_flops, the numerator of MFU, counts three times the forward (PaLM, Chowdhery et al. 2022,
appendix B: no recomputation, attention over the full square). Active parameters are those that
one token meets: of E experts, per_token of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache

import networkx as nx

from planner.graph import transformer
from planner.graph.operator import Operator
from planner.graph.view import RankView
from planner.spec.layer import Experts, LayerSpec
from planner.spec.model import ModelSpec
from planner.spec.workload import Workload

ONE = RankView(1, 1)


def parts(model: ModelSpec, view: RankView) -> Iterator[tuple[nx.DiGraph, int, LayerSpec | None]]:
    """Every distinct part of a model, how often it occurs, and its kind if it is a layer."""
    for index, stack in enumerate(model.stacks):
        yield transformer.embedding_graph(model, view, index), 1, None
        for kind, times in sorted(Counter(stack.order).items()):
            graph = transformer.layer_graph(model, view, "layer.", index, kind)
            yield graph, times, stack.kinds[kind]
    if model.encoder is not None:
        yield transformer.encoder_end_graph(model, view), 1, None
    yield transformer.head_graph(model, view, holds_embedding=True), 1, None


def total(model: ModelSpec, view: RankView, fact: Callable[[Operator], int]) -> int:
    """The sum of a fact over all operators of a model."""
    return sum(
        times * sum(fact(operator) for operator in transformer.operators(graph))
        for graph, times, _ in parts(model, view)
    )


@lru_cache(maxsize=256)
def parameters(model: ModelSpec) -> int:
    """Parameters of the model, tied and shared ones once, frozen ones included."""
    return total(model, ONE, lambda operator: operator.parameters)


@lru_cache(maxsize=256)
def active_parameters(model: ModelSpec) -> int:
    """Parameters that one token meets."""
    found = 0
    for graph, times, spec in parts(model, ONE):
        for operator in transformer.operators(graph):
            found += times * _active(operator, spec or _last(model))
    return found


def _last(model: ModelSpec) -> LayerSpec:
    return model.main.kinds[model.main.order[-1]]


def _active(operator: Operator, spec: LayerSpec) -> int:
    feed = spec.feed_forward
    if not operator.expert or not isinstance(feed, Experts):
        return operator.parameters
    return operator.parameters * feed.per_token // feed.experts


@lru_cache(maxsize=256)
def embedding_parameters(model: ModelSpec) -> int:
    """Parameters of token, position and type tables (a head's own matrix not included)."""
    graphs = [transformer.embedding_graph(model, ONE, i) for i in range(len(model.stacks))]
    kinds = ("embedding", "position_embedding", "type_embedding")
    found = [op for graph in graphs for op in transformer.operators(graph)]
    return sum(operator.parameters for operator in found if operator.kind in kinds)


def layer_parameters(model: ModelSpec, stack: int = 0, kind: int = 0) -> int:
    """Parameters of one layer of a kind."""
    graph = transformer.layer_graph(model, ONE, "layer.", stack, kind)
    return sum(operator.parameters for operator in transformer.operators(graph))


@lru_cache(maxsize=256)
def forward_flops(model: ModelSpec, batch: int, seq: int) -> int:
    """Matrix-product FLOPs of one forward pass of `batch` sequences of `seq` tokens."""
    return total(model, RankView(batch, seq), lambda operator: operator.forward_flops)


@lru_cache(maxsize=256)
def backward_flops(model: ModelSpec, batch: int, seq: int) -> int:
    """Matrix-product FLOPs of the backward of the same pass."""
    return total(model, RankView(batch, seq), lambda operator: operator.backward_flops)


def model_flops(model: ModelSpec, workload: Workload) -> int:
    """FLOPs that one training step needs at least: three times the forward."""
    return 3 * forward_flops(model, 1, workload.seq_len) * workload.global_batch
