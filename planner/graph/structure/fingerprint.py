"""Structural hashing: equal graphs have equal signatures, whatever their nodes are called.

    facts(v)  everything that v says about itself but its name
    up(v)     H(facts(v), the sorted up of what v reads)        from the sources down
    down(v)   H(facts(v), the sorted down of who reads v)       from the sinks up
    mark(v)   H(up(v), down(v))
    S(G)      H(the sorted marks, the sorted pairs of marks along the edges)

H is BLAKE2b, so a signature is the same on every machine and in every process. Cost: O(V + E)
hashes and one sort. Names, order of insertion and object identity do not enter. A changed fact
and an added or a missing edge always change S, because S holds the facts of all nodes and one
pair per edge. What it leaves out: two graphs of equal nodes whose every up and down agree (two
separate 2 x 2 complete bipartite graphs beside one ring of 8) hash alike, as with any
refinement of Weisfeiler and Lehman (1968).
"""

import hashlib
from collections.abc import Iterable, Mapping

import networkx as nx

from planner.graph.operator import Node


def signature(graph: nx.DiGraph) -> str:
    """The structural hash of a graph without cycles."""
    found = marks(graph)
    wires = sorted(found[u] + found[v] for u, v in graph.edges)
    return digest([*sorted(found.values()), "|", *wires])


def marks(graph: nx.DiGraph) -> dict[Node, str]:
    """Each node's own hash: what it is, all that it depends on and all that depends on it."""
    order = list(nx.topological_sort(graph))
    up = _gather(order, graph.pred)
    down = _gather(order[::-1], graph.succ)
    return {node: digest([up[node], down[node]]) for node in order}


def _gather(order: Iterable[Node], before: Mapping[Node, Iterable[Node]]) -> dict[Node, str]:
    found: dict[Node, str] = {}
    for node in order:
        found[node] = digest([own(node), *sorted(found[other] for other in before[node])])
    return found


def own(node: Node) -> str:
    """The hash of what a node says about itself, its name left out."""
    return digest([type(node).__name__, *(f"{key}={value!r}" for key, value in facts(node))])


def facts(node: Node) -> tuple[tuple[str, object], ...]:
    """(field, value) of everything a node says about itself but its name."""
    keys = (key for key in node.__dataclass_fields__ if key != "name")
    return tuple((key, getattr(node, key)) for key in keys)


def digest(parts: Iterable[str]) -> str:
    """H: 32 hexadecimal digits of the parts in their order."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
