"""A graph as GraphML (Brandes et al. 2002), which networkx, Gephi, yEd and igraph read.

A node is its operator's name, an edge says who reads whom. Every fact is an attribute of its own
type, and the unit is in its name (`forward_flops`, `saved_bytes`; `parameters` counts
elements). `dims` become `dim_m`, `dim_k`, ...; the dims that a mesh axis can divide become
`split_m` = `tp` and what they are made of `meaning_m` = `hidden`. `block` is the layer or other
module, `signature` is equal for equal blocks, and a collective has kind `collective` and its
`op`, `axis`, `message_bytes`.
"""

import networkx as nx

from planner.graph.operator import Collective, Node
from planner.graph.structure import outline
from planner.graph.structure.fingerprint import facts
from planner.graph.structure.outline import Block

Value = str | int | float | bool
HEADER = "<?xml version='1.0' encoding='utf-8'?>"


def graphml(graph: nx.DiGraph, name: str = "") -> str:
    """The whole graph as text; networkx.read_graphml gives the same nodes and edges."""
    flat = nx.DiGraph(**({"name": name} if name else {}))
    for block in outline.blocks(graph):
        for node in block.nodes:
            flat.add_node(node.name, **attributes(node, block))
    flat.add_edges_from(sorted((u.name, v.name) for u, v in graph.edges))
    assert len(flat) == len(graph), "names are unique in a graph"
    return "\n".join([HEADER, *nx.generate_graphml(flat, named_key_ids=True)]) + "\n"


def attributes(node: Node, block: Block) -> dict[str, Value]:
    """Everything a node says about itself, one value per attribute."""
    found: dict[str, Value] = {"block": block.name, "signature": block.signature}
    if isinstance(node, Collective):
        found["kind"] = "collective"
    else:
        found |= {f"dim_{dim}": size for dim, size in node.dims}
        found |= {f"split_{split.dim}": split.axis for split in node.splits}
        found |= {f"meaning_{split.dim}": split.meaning for split in node.splits}
    for key, value in facts(node):
        if key not in ("dims", "splits"):
            assert isinstance(value, str | int | float | bool), key
            found[key] = value
    return found
