"""Counts of a whole model: parameters and FLOPs, without building a graph per layer.

Parameters of a decoder: V*h (embedding) + P*h (learned positions) + L * layer + norm + head
(V*h unless tied). Training FLOPs of a step are the sum over operators of forward and backward
matrix products; model_flops, the numerator of MFU, counts three times the forward (PaLM,
Chowdhery et al. 2022, appendix B: no recomputation, attention over the full square).
"""

from functools import lru_cache

from planner.graph import transformer
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from planner.spec.workload import Workload


@lru_cache(maxsize=256)
def parameters(model: ModelSpec) -> int:
    """Trainable parameters of the model, tied ones once."""
    view = RankView(1, 1)
    return (
        _parameters(transformer.embedding_graph(model, view))
        + model.layers * layer_parameters(model)
        + _parameters(transformer.head_graph(model, view, holds_embedding=True))
    )


def layer_parameters(model: ModelSpec) -> int:
    """Trainable parameters of one layer."""
    return _parameters(transformer.layer_graph(model, RankView(1, 1)))


def _parameters(graph: object) -> int:
    return sum(operator.parameters for operator in transformer.operators(graph))


@lru_cache(maxsize=256)
def forward_flops(model: ModelSpec, batch: int, seq: int) -> int:
    """Matrix-product FLOPs of one forward pass of `batch` sequences of `seq` tokens."""
    view = RankView(batch, seq)
    layer = _forward_flops(transformer.layer_graph(model, view))
    head = _forward_flops(transformer.head_graph(model, view, holds_embedding=True))
    return model.layers * layer + head


def _forward_flops(graph: object) -> int:
    return sum(operator.forward_flops for operator in transformer.operators(graph))


def model_flops(model: ModelSpec, workload: Workload) -> int:
    """FLOPs that one training step needs at least: three times the forward."""
    return 3 * forward_flops(model, 1, workload.seq_len) * workload.global_batch
