"""Data parallelism in a graph: what ZeRO gathers and scatters, per block of a model.

d ranks hold the same parameters (dense: d = dp*cp; experts: d = dp*cp*tp/(ep*x)). e bytes of a
weight, g of a gradient, P elements of the block on a rank:

    ZeRO 0   all-reduce of P*g once per step
    ZeRO 1   reduce-scatter of P*g and all-gather of the new weights P*e, once per step
    ZeRO 2   all-gather of P*e before the forward, reduce-scatter of P*g behind the backward
    ZeRO 3   the same, and a second all-gather before the backward

(Rajbhandari et al. 2020; 2 and 3 as torch's fully_shard orders them, per backward). A flat buffer
(0 and 1) starts every parameter at `line_bytes` and, where it is cut in d parts, is rounded up to
d. fully_shard cuts dim 0 of every parameter in d equal chunks, so P there counts the padding:
sum of ceil(rows/d)*d * row. Hybrid sharding cuts over `shard` ranks and then reduces each
shard over the d/shard replicas.

With sequence parallelism the tp ranks see different tokens, so the gradients of parameters that
all of them hold (norms, row-parallel biases, positions, routers) are summed over tp before:
R elements in the same flat buffer, all-reduce of R*g once per step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import networkx as nx

from planner.graph.operator import Collective, Operator
from planner.graph.view import RankView
from planner.spec.profile import CollectiveOp, Phase

COPIES = "gradients.replicas"
"""The sum over the copies that hybrid sharding leaves."""


@dataclass(frozen=True, slots=True)
class DataParallel:
    """How parameters are kept over d = ranks. shard: ranks of one shard group (default all)."""

    ranks: int
    zero: int
    weight_bytes: int
    gradient_bytes: int
    shard: int | None = None
    line_bytes: int = 1

    @property
    def shards(self) -> int:
        """Ranks that one copy of the parameters is divided over."""
        return self.shard or self.ranks

    def of_experts(self, view: RankView) -> Self:
        """The same for experts, whose copies are as many as ep and etp leave."""
        return replace(self, ranks=self.ranks * view.tp // (view.ep * view.etp), shard=None)


def data_parallel(graph: nx.DiGraph, dense: DataParallel, name: str) -> list[Collective]:
    """The collectives of the block's dense parameters (see `expert_data_parallel`)."""
    return _collectives(dense, _shapes(graph, expert=False), name)


def expert_data_parallel(graph: nx.DiGraph, expert: DataParallel, name: str) -> list[Collective]:
    """The collectives of the block's experts, whose groups are smaller by ep."""
    return _collectives(expert, _shapes(graph, expert=True), name + "experts.")


def flat_elements(graph: nx.DiGraph, dense: DataParallel) -> int:
    """Elements of one flat buffer of all parameters of a graph, padding included."""
    return _flat(dense, _shapes(graph, expert=False) + _shapes(graph, expert=True))


def replicated_gradients(
    graph: nx.DiGraph, view: RankView, dense: DataParallel, name: str
) -> list[Collective]:
    """The sum over tp of the gradients of parameters that every tp rank holds."""
    shapes = [s for node in graph if isinstance(node, Operator) for s in _replicated(node)]
    if view.tp == 1 or not view.sequence_parallel or not shapes:
        return []
    size = _flat(replace(dense, zero=0), shapes) * dense.gradient_bytes
    return [Collective(name + "gradients.replicated", "all_reduce", "tp", size, "backward")]


def _replicated(operator: Operator) -> list[tuple[int, int]]:
    """Shapes of the parameters of an operator that are the same on every tp rank."""
    return [shape for shape, same in parameters(operator) if same]


def parameters(operator: Operator) -> list[tuple[tuple[int, int], bool]]:
    """The shape of every parameter that is trained, and whether all tp ranks hold the same."""
    if not operator.trainable:
        return []
    shapes = parameter_shapes(operator)
    row_parallel = any(split.dim == "k" and split.axis == "tp" for split in operator.splits)
    same = [operator.replicated or (row_parallel and i > 0) for i in range(len(shapes))]
    return [(shape, each and not operator.expert) for shape, each in zip(shapes, same, strict=True)]


def parameter_shapes(operator: Operator) -> list[tuple[int, int]]:
    """(rows, elements of a row) of every parameter of an operator, as torch lays them out."""
    dims, left = dict(operator.dims), operator.parameters
    if not left:
        return []
    if operator.kind in ("linear", "convolution"):
        shapes = [(dims["n"], dims["k"]), (dims["n"], 1)]
    elif operator.kind == "grouped_linear":
        shapes = [(dims["groups"], dims["k"] * dims["n"]), (dims["groups"], dims["n"])]
    elif operator.kind in ("layernorm", "rmsnorm"):
        shapes = [(dims["width"], 1)] * 2
    elif operator.kind == "relative_bias":
        shapes = [(dims["buckets"], dims["heads"])]
    elif operator.kind == "class_token":
        shapes = [(1, dims["width"])]
    else:
        width = dims["width"]
        shapes = [(left // width, width)]
    found = []
    for rows, row in shapes:
        if left >= rows * row:
            found.append((rows, row))
            left -= rows * row
    assert not left, f"{operator.name}: {left} parameters without a shape"
    return found


def _shapes(graph: nx.DiGraph, expert: bool) -> list[tuple[int, int]]:
    return [
        shape
        for node in graph
        if isinstance(node, Operator) and node.expert == expert and node.trainable
        for shape in parameter_shapes(node)
    ]


def _collectives(how: DataParallel, shapes: list[tuple[int, int]], name: str) -> list[Collective]:
    if how.ranks == 1 or not shapes:
        return []
    return [
        Collective(name + part, op, "dp", size, phase)
        for part, op, size, phase in _messages(how, shapes)
    ]


def _messages(
    how: DataParallel, shapes: list[tuple[int, int]]
) -> Iterator[tuple[str, CollectiveOp, int, Phase]]:
    if how.zero < 2:
        flat = _flat(how, shapes)
        if how.zero == 0:
            yield "gradients", "all_reduce", flat * how.gradient_bytes, "backward"
            return
        yield "gradients", "reduce_scatter", flat * how.gradient_bytes, "backward"
        yield "weights", "all_gather", flat * how.weight_bytes, "backward"
        if how.shards < how.ranks:
            yield COPIES, "all_reduce", flat // how.shards * how.gradient_bytes, "backward"
        return
    cut = sum(_up(rows, how.shards) * row for rows, row in shapes)
    yield "weights", "all_gather", cut * how.weight_bytes, "forward"
    if how.zero == 3:
        yield "weights.again", "all_gather", cut * how.weight_bytes, "backward"
    yield "gradients", "reduce_scatter", cut * how.gradient_bytes, "backward"
    if how.shards < how.ranks:
        own = cut // how.shards * how.gradient_bytes
        yield COPIES, "all_reduce", own, "backward"


def _flat(how: DataParallel, shapes: list[tuple[int, int]]) -> int:
    line = max(1, how.line_bytes // how.weight_bytes)
    size = sum(_up(rows * row, line) for rows, row in shapes)
    return _up(size, how.shards) if how.zero else size


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
