"""Recompute: what a layer keeps, and what it runs again, in each mode.

    none       every operator's saved bytes
    selective  by the runtime's rule
        core       without what the attention core can make again from q, k and v: scores and
                   statistics (Korthikanti et al. 2022); its output stays, the next matrix product
                   needs it
        products   the layer's input, the outputs of the attention core, of every second matrix
                   product (the first, the third, ...) and of reduce-scatters (the policy of
                   torchtitan's "selective op"; grouped products of experts are run again)
    full       the layer's input only

A second run may end once the last tensor that the backward needs is back: after `full` an operator
is run again only if one that comes later keeps a tensor, whether or not it reads what the first
makes (an attention beside an MLP runs before it). The nodes of a graph are in that order. By
`products` exactly those are run again whose output is not kept and is the input of one that keeps
tensors, or of one that is run again.
"""

from itertools import count

import networkx as nx

from planner.graph.operator import Collective, Node, Operator
from planner.graph.parts import elements
from planner.graph.parts.attention import CORE_KINDS
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from planner.spec.runtime import Recompute, SelectiveRule


def saved_bytes(
    graph: nx.DiGraph,
    mode: Recompute,
    input_bytes: int,
    view: RankView,
    rule: SelectiveRule = "core",
) -> int:
    """Bytes that a layer keeps per microbatch. input_bytes: of its input on this rank."""
    if mode == "full":
        return input_bytes
    if mode == "selective" and rule == "products":
        return input_bytes + sum(_output_bytes(node, view) for node in _kept(graph))
    kept = sum(node.saved_bytes for node in graph if isinstance(node, Operator))
    if mode == "none":
        return kept
    return kept - sum(node.selective_bytes for node in graph if isinstance(node, Operator))


def input_bytes(model: ModelSpec, view: RankView) -> int:
    """Bytes of the residual stream on one rank: the input of any layer."""
    return view.outer_rows * model.hidden * view.element_bytes


def run_again(
    graph: nx.DiGraph, mode: Recompute, stops_early: bool, rule: SelectiveRule = "core"
) -> list[Node]:
    """The nodes whose forward runs a second time, in topological order."""
    order: list[Node] = list(nx.topological_sort(graph))
    if mode == "none":
        return []
    if mode == "selective" and rule == "products":
        again = _missing(graph)
        return [node for node in order if node in again]
    if mode == "selective":
        return [node for node in order if isinstance(node, Operator) and node.selective_bytes]
    if not stops_early:
        return order
    before = _before_the_last_that_keeps(list(graph))
    return [node for node in order if node in before]


def _before_the_last_that_keeps(nodes: list[Node]) -> set[Node]:
    keeping = (i for i, node in enumerate(nodes) if isinstance(node, Operator) and node.saved_bytes)
    return set(nodes[: max(keeping, default=0)])


def _kept(graph: nx.DiGraph) -> list[Node]:
    """The nodes whose outputs stay by the rule `products`."""
    number = count()
    return [node for node in nx.topological_sort(graph) if _stays(node, number)]


def _stays(node: Node, products: "count[int]") -> bool:
    if isinstance(node, Collective):
        return (node.op, node.phase) == ("reduce_scatter", "forward")
    return node.kind in CORE_KINDS or (node.kind == "linear" and next(products) % 2 == 0)


def _output_bytes(node: Node, view: RankView) -> int:
    """Bytes of a kept output on this rank; of a core with its statistics in fp32."""
    if isinstance(node, Collective):
        return node.message_bytes // view.tp
    dims = dict(node.dims)
    if node.kind == "linear":
        return dims["m"] * dims["n"] * view.element_bytes
    rows = dims["batch"] * dims["seq"] * dims["heads"]
    width = dims.get("value_dim", dims["head_dim"])
    return rows * (width * view.element_bytes + elements.FP32_BYTES)


def _missing(graph: nx.DiGraph) -> set[Node]:
    """The nodes that must run again for the inputs of those that keep tensors."""
    there = set(_kept(graph))
    missing: set[Node] = set()
    keeping = [node for node in graph if isinstance(node, Operator) and node.saved_bytes]
    wanted = [before for node in keeping for before in graph.predecessors(node)]
    while wanted:
        node = wanted.pop()
        if node not in there and node not in missing:
            missing.add(node)
            wanted += graph.predecessors(node)
    return missing
