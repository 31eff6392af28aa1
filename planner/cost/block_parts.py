"""Parts of a block: what of the graph of an embedding, a layer or the head its cost is made of.

Operators and collectives in their order; the products that tensor parallelism lets in; those that
recomputation runs again, and the bytes kept in each of its modes (planner.graph.recompute); what a
split backward puts aside (planner.cost.deferred); the widest activation gradient of its backward;
parameters, those that every tp rank holds alike and those of experts apart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce

import networkx as nx
import numpy as np

from planner.cost.column import larger
from planner.cost.deferred import Aside
from planner.graph import recompute, transformer
from planner.graph.operator import Block, Collective, LayerKind, Node, Operator
from planner.graph.parts import elements
from planner.graph.parts.attention import CORE_KINDS
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from planner.spec.runtime import SelectiveRule

GROUPED = "grouped_linear"
"""The kind of the products of experts."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a block's graph its cost is made of."""

    operators: tuple[Operator, ...]
    collectives: tuple[Collective, ...]
    entered: tuple[Operator, ...]
    again: tuple[Node, ...]
    again_selective: tuple[Node, ...]
    saved: tuple[int, int, int]
    aside_bytes: int
    gathered_bytes: int
    widest_bytes: int
    weight_gradient_bytes: int
    parameters: int
    replicated_parameters: int
    expert_parameters: int

    @classmethod
    def of(
        cls,
        graph: nx.DiGraph,
        model: ModelSpec,
        view: RankView,
        stops_early: bool,
        rule: SelectiveRule,
    ) -> "Parts":
        """Read a block's graph. rule: what selective recomputation makes again."""
        operators = tuple(transformer.operators(graph))
        collectives = tuple(transformer.collectives(graph))
        inputs, size = recompute.input_bytes(model, view), view.element_bytes
        none, selective, full = (
            recompute.saved_bytes(graph, mode, inputs, view, rule)
            for mode in ("none", "selective", "full")
        )
        gathered = [
            node.message_bytes
            for node in collectives
            if (node.op, node.axis, node.phase) == ("all_gather", "tp", "forward")
        ]
        return cls(
            operators=operators,
            collectives=collectives,
            entered=tuple(_entered(graph, operators)),
            again=tuple(recompute.run_again(graph, "full", stops_early)),
            again_selective=tuple(recompute.run_again(graph, "selective", stops_early, rule)),
            saved=(none, selective, full),
            aside_bytes=Aside.of(graph, size).held,
            gathered_bytes=sum(gathered),
            widest_bytes=reduce(larger, (widest_bytes(op, size) for op in operators), 0),
            weight_gradient_bytes=reduce(larger, (op.parameters for op in operators), 0) * size,
            parameters=sum(op.parameters for op in operators),
            replicated_parameters=sum(op.parameters for op in operators if op.replicated),
            expert_parameters=sum(op.parameters for op in operators if op.expert),
        )

    @property
    def experts(self) -> int:
        """Experts of the layer that this rank holds."""
        groups = (dict(op.dims)["groups"] for op in self.operators if op.kind == GROUPED)
        held: int = next(groups, 0)
        return held

    @property
    def routed(self) -> tuple[Operator, ...]:
        """What works on the copies of tokens that the router sends to experts."""
        return tuple(op for op in self.operators if is_routed(op))

    def ungathered_bytes(self, tp: int) -> float:
        """Bytes less where only a rank's own part of what tp gathers is kept."""
        return self.gathered_bytes * (1 - 1 / tp)


def _entered(graph: nx.DiGraph, operators: Iterable[Operator]) -> Iterator[Operator]:
    """Matrix products whose input every rank of tp has whole, gathered where it was divided."""
    for operator in operators:
        before = [node for node in graph.predecessors(operator) if isinstance(node, Collective)]
        if operator.kind == "linear" and any(_enters(node) for node in before):
            yield operator


def _enters(node: Collective) -> bool:
    """Whether it stands before a block (planner.graph.parts.exchange)."""
    reduces = node.op in ("reduce_scatter", "all_reduce")
    return node.axis == "tp" and node.phase == "backward" and reduces


def is_routed(operator: Operator) -> bool:
    """Whether it works on the copies that a router sends to experts: how many is known only when
    the router has chosen."""
    return ".experts." in operator.name or operator.kind in ("permute", "combine")


def widest_bytes(operator: Operator, size: int) -> int:
    """Bytes of the largest activation gradient that an operator's backward makes; the loss
    computes in fp32 at least."""
    dims = dict(operator.dims)
    if operator.kind in ("linear", GROUPED, "convolution"):
        wide: int = larger(dims["k"], dims["n"])
        return dims["m"] * wide * size
    if operator.kind in CORE_KINDS:
        rows: int = dims["batch"] * larger(dims["seq"], dims.get("keys", 0))
        return rows * (dims["heads"] + 2 * dims["kv_heads"]) * dims["head_dim"] * size
    if operator.kind in ("cross_entropy", "parallel_cross_entropy"):
        return dims["rows"] * dims["vocab"] * max(size, elements.FP32_BYTES)
    if operator.kind == "relative_bias":
        return dims["heads"] * dims["pairs"] * size
    return dims["rows"] * dims.get("width", 1) * size


class BlockGraphs:
    """The graphs of a model's blocks by view, built once however often they are costed."""

    def __init__(self, model: ModelSpec):
        self.model = model
        self.parts = lru_cache(maxsize=8192)(self._parts)

    def graph(self, block: Block, view: RankView) -> nx.DiGraph:
        """The block's operators and collectives on one rank."""
        if block == "head":
            return transformer.head_graph(self.model, view, holds_embedding=False)
        if isinstance(block, LayerKind):
            return transformer.layer_graph(self.model, view, "layer.", *block)
        stacks = range(len(self.model.stacks))
        parts = [transformer.embedding_graph(self.model, view, index) for index in stacks]
        if self.model.encoder is not None:
            parts.append(transformer.encoder_end_graph(self.model, view))
        return nx.compose_all(parts)

    def parts_of(
        self, block: Block, view: RankView, stops_early: bool, selective: SelectiveRule
    ) -> Parts:
        """The parts of a block; those of a column of views are made anew."""
        columns = any(isinstance(n, np.ndarray) for n in (view.batch, view.cp, view.ep, view.etp))
        made = self._parts if columns else self.parts
        return made(block, view, stops_early, selective)

    def _parts(
        self, block: Block, view: RankView, stops_early: bool, selective: SelectiveRule
    ) -> Parts:
        rule = selective if isinstance(block, LayerKind) else "core"
        return Parts.of(self.graph(block, view), self.model, view, stops_early, rule)
