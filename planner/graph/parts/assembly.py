"""Assembly: a graph under construction. Nodes follow each other along the flow of the data.

A flow is the list of nodes whose results the next node reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import networkx as nx

from planner.graph.operator import Collective, Node, Operator
from planner.graph.view import RankView
from planner.spec.model import ModelSpec

Flow = Sequence[Node]


class Assembly:
    """One graph of one model as one rank sees it, and the means to extend it.

    Outside training there is no backward: its collectives are left out, and operators lose its
    FLOPs, bytes and saved tensors.
    """

    def __init__(self, model: ModelSpec, view: RankView):
        self.model, self.view = model, view
        self.graph = nx.DiGraph(memory_readers=[], stream_readers=[], bias_readers=[])

    def add(self, after: Flow, *nodes: Node) -> list[Node]:
        """Put nodes in a row behind a flow. Returns the new end of the flow."""
        flow = list(after)
        for node in self.kept(nodes):
            self.graph.add_node(node)
            self.graph.add_edges_from((before, node) for before in flow)
            flow = [node]
        return flow

    def kept(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that the task runs, without what it does not run of them."""
        if self.view.task == "train":
            return list(nodes)
        return [_forward_only(node) for node in nodes if not _is_backward(node)]

    def reads_memory(self, nodes: Flow) -> None:
        """Say which nodes read the encoder's output."""
        self.graph.graph["memory_readers"] += nodes

    def reads_stream(self, nodes: Flow) -> None:
        """Say which nodes read what stands before the graph, besides its first nodes."""
        self.graph.graph["stream_readers"] += nodes

    def reads_bias(self, nodes: Flow) -> None:
        """Say which nodes read the relative biases of their stack."""
        self.graph.graph["bias_readers"] += nodes


def _is_backward(node: Node) -> bool:
    return isinstance(node, Collective) and node.phase == "backward"


def _forward_only(node: Node) -> Node:
    if isinstance(node, Collective):
        return node
    return replace(
        node,
        input_gradient_flops=0,
        weight_gradient_flops=0,
        backward_bytes=0,
        saved_bytes=0,
        selective_bytes=0,
    )


def join(graph: nx.DiGraph, before: nx.DiGraph, after: nx.DiGraph) -> None:
    """Let the first nodes of one part, and its residual sums, follow the last of another."""
    inputs = [*sources(after), *after.graph.get("stream_readers", [])]
    graph.add_edges_from((out, inp) for out in sinks(before) for inp in inputs)


def sources(graph: nx.DiGraph) -> list[Node]:
    """Nodes that nothing comes before, except those that read a memory (see `memory_readers`)."""
    readers = memory_readers(graph)
    return [node for node in graph if graph.in_degree(node) == 0 and node not in readers]


def sinks(graph: nx.DiGraph) -> list[Node]:
    """Nodes that nothing follows, without relative biases: only attention reads those."""
    return [n for n in graph if graph.out_degree(n) == 0 and n not in relative_biases(graph)]


def relative_biases(graph: nx.DiGraph) -> list[Node]:
    """The relative biases that a part of a graph makes for the attention behind it."""
    return [n for n in graph if isinstance(n, Operator) and n.kind == "relative_bias"]


def share_biases(graph: nx.DiGraph, parts: Sequence[nx.DiGraph]) -> None:
    """Let the attention of all parts of a chain read the biases that the first one makes."""
    readers = [node for part in parts for node in part.graph.get("bias_readers", [])]
    graph.add_edges_from((bias, n) for bias in relative_biases(parts[0]) for n in readers)


def memory_readers(graph: nx.DiGraph) -> list[Node]:
    """Nodes of decoder layers that read the output of the encoder."""
    found: list[Node] = graph.graph.get("memory_readers", [])
    return found
