"""Depths: how far each node of a graph lies from its sources."""

import networkx as nx

from planner.graph.operator import Node


def depths(graph: nx.DiGraph) -> dict[Node, int]:
    """Edges on the longest way from a source to each node."""
    depth: dict[Node, int] = {}
    for node in nx.topological_sort(graph):
        depth[node] = max((depth[u] + 1 for u in graph.pred[node]), default=0)
    return depth
