"""Recompute: what a layer keeps, and what it runs again, in each mode.

    none       every operator's saved bytes
    selective  without what the attention core can make again from q, k and v: scores and
               statistics (Korthikanti et al. 2022); its output stays, the next matrix product
               needs it
    full       the layer's input only

A second run may end once the last tensor that the backward needs is back: an operator is run
again only if something behind it keeps a tensor.
"""

import networkx as nx

from planner.graph.operator import Node, Operator
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from planner.spec.runtime import Recompute


def saved_bytes(graph: nx.DiGraph, mode: Recompute, input_bytes: int) -> int:
    """Bytes that a layer keeps per microbatch. input_bytes: of its input on this rank."""
    if mode == "full":
        return input_bytes
    kept = sum(node.saved_bytes for node in graph if isinstance(node, Operator))
    if mode == "none":
        return kept
    return kept - sum(node.selective_bytes for node in graph if isinstance(node, Operator))


def input_bytes(model: ModelSpec, view: RankView) -> int:
    """Bytes of the residual stream on one rank: the input of any layer."""
    return view.outer_rows * model.hidden * view.element_bytes


def run_again(graph: nx.DiGraph, mode: Recompute, stops_early: bool) -> list[Node]:
    """The nodes whose forward runs a second time, in topological order."""
    order: list[Node] = list(nx.topological_sort(graph))
    if mode == "none":
        return []
    if mode == "selective":
        return [node for node in order if isinstance(node, Operator) and node.selective_bytes]
    return [node for node in order if _needed(graph, node)] if stops_early else order


def _needed(graph: nx.DiGraph, node: Node) -> bool:
    behind: set[Node] = nx.descendants(graph, node)
    return any(isinstance(each, Operator) and each.saved_bytes for each in behind)
