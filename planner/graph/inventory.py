"""Inventory: the distinct operators that a search over a model can meet, for the profiler.

Layers repeat, so a model of any depth has few distinct shapes: those of one layer, the
embedding and the head, per microbatch size and tensor-parallel degree.
"""

from collections.abc import Sequence

from planner.graph import transformer
from planner.graph.counts import parameters
from planner.graph.operator import Dims, Operator
from planner.graph.view import RankView, tp_problem
from planner.spec.model import ModelSpec

Request = tuple[str, dict[str, int]]


def requests(
    model: ModelSpec, seq_len: int, micro_batches: Sequence[int], tps: Sequence[int], dtype: str
) -> list[Request]:
    """(kind, dims) of every distinct operator, layers first, smallest tp and microbatch first.

    Degrees that cannot divide the model are left out. The optimiser's operators are asked for
    at the parameter counts of a whole model, a half, a quarter and so on down to 1/64.
    """
    found: dict[tuple[str, Dims], None] = {}
    for tp in tps:
        if tp_problem(model, seq_len, tp, sequence_parallel=True):
            continue
        for batch in micro_batches:
            for operator in _distinct(model, RankView(batch, seq_len, tp, dtype=dtype)):
                found.setdefault((operator.kind, operator.dims))
    return [(kind, dict(dims)) for kind, dims in found] + _optimizer(model)


def _distinct(model: ModelSpec, view: RankView) -> list[Operator]:
    layers = [
        transformer.layer_graph(model, view, "layer.", stack, kind)
        for stack, kind in dict.fromkeys(model.order)
    ]
    ends = [transformer.head_graph(model, view, holds_embedding=False)]
    ends += [transformer.embedding_graph(model, view, index) for index in range(len(model.stacks))]
    return [operator for graph in (*layers, *ends) for operator in transformer.operators(graph)]


def _optimizer(model: ModelSpec) -> list[Request]:
    counts = sorted({max(1, parameters(model) >> shift) for shift in range(7)}, reverse=True)
    kinds = ("adamw", "gradient_norm", "zero_gradient")
    return [(kind, {"parameters": count}) for count in counts for kind in kinds]
