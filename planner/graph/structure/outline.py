"""Blocks: the graph cut into its layers, and which of them are equal.

A block is a group of operators that stand for one module. Where names say so (`layer3.mlp.up`,
`decoder.layer3.cross.q`, `model.layers.3.mlp.up_proj`) a block is all that shares the name up to
the first number, and of names without a number (`head.norm`) all that shares everything before
the last part, or more where that is an operator (`head.transform.norm` is of `head`). Blocks must
form a graph without cycles; a group that lies around others (an embedding and a last norm that
are both called `model.…`) is cut by how many other groups come before. Where no name has a
number, blocks are found from the sequence of operators (sequence). A captured graph writes
`model.layers.3.mlp:2` for the third operator that a module runs itself.

Two blocks are equal if their signatures are (fingerprint): same kinds, dims, facts and wiring,
whatever the names. A block whose operators carry the same local names, facts and wires as an
earlier one gets that one's signature without hashing, so a model of 126 layers costs the hashing
of its distinct layers.
"""

import functools
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass

import networkx as nx

from planner.graph.operator import Node
from planner.graph.structure import fingerprint, sequence
from planner.graph.structure.runs import runs

LAYER = re.compile(r"(?:^|.*?\.)(?:(?:layers?|blocks?|mtp)_?)?(\d+)(?=[.:]|$)")
"""A name up to its first part that is a number, or `layer`, `block` or `mtp` and a number."""
STEM = re.compile(r"(.+?)\.(?:[^.\d]+\.\d+|(?:layers?|blocks?)_?\d+)$")
"""What stands before `layers.3` or `layer3`."""


@dataclass(frozen=True, slots=True)
class Block:
    """One module of the model: a layer, an embedding, a head.

    name: what its operators' names share. tower: the chain that it belongs to (`encoder`), ""
    where the model is one chain. index: its number in the chain, None without one. nodes: in an
    order that equal blocks share, so that the i-th nodes of two of them correspond.
    """

    name: str
    tower: str
    index: int | None
    nodes: tuple[Node, ...]
    signature: str

    def local(self, node: Node) -> str:
        """The name of a node inside its block."""
        return _local(node.name, self.name)


@dataclass(frozen=True, slots=True)
class Distinct:
    """A block, and how many blocks equal it (itself included)."""

    block: Block
    count: int


@dataclass(frozen=True, slots=True)
class Part:
    """What repeats: `count` copies in series of one block, or of the parts inside.

    members: all blocks that it stands for, first to last; parts: empty for one block.
    """

    count: int
    members: tuple[Block, ...]
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """The nodes of a block before it has a signature."""

    name: str
    nodes: tuple[Node, ...]


def blocks(graph: nx.DiGraph) -> tuple[Block, ...]:
    """The blocks of a graph in topological order; of two towers, the longer way comes first."""
    known: dict[Hashable, str] = {}
    if any(LAYER.match(node.name) for node in graph):
        groups = _named(graph)
    else:
        groups = [_Group(name, nodes) for name, nodes in sequence.pieces(graph)]
    towers = _towers(group.name for group in groups)
    return tuple(_block(graph, group, towers, known) for group in groups)


def distinct(found: Iterable[Block]) -> tuple[Distinct, ...]:
    """The blocks that differ, in order of their first copy, each with its number of copies."""
    found = tuple(found)
    counts = Counter(block.signature for block in found)
    first = {block.signature: block for block in reversed(found)}
    order = dict.fromkeys(block.signature for block in found)
    return tuple(Distinct(first[mark], counts[mark]) for mark in order)


def outline(graph: nx.DiGraph) -> tuple[Part, ...]:
    """The blocks, with every repetition in series said once: 10 x (5 x local, 1 x global)."""
    found = blocks(graph)
    owner = {node: i for i, block in enumerate(found) for node in block.nodes}
    joined = {(owner[u], owner[v]) for u, v in graph.edges}
    chains: list[list[Block]] = []
    for index, block in enumerate(found):
        if index == 0 or (index - 1, index) not in joined:
            chains.append([])
        chains[-1].append(block)
    return tuple(part for chain in chains for part in _parts((tuple(chain),)))


def _parts(copies: tuple[tuple[Block, ...], ...]) -> tuple[Part, ...]:
    """The parts of equal sequences of blocks, found on the first of them."""
    parts: list[Part] = []
    for run in runs([(block.tower, _series(block), block.signature) for block in copies[0]]):
        if run.count == 1:
            for index in range(run.start, run.stop):
                parts.append(Part(1, tuple(copy[index] for copy in copies)))
            continue
        starts = range(run.start, run.stop, run.period)
        inner = tuple(copy[at : at + run.period] for copy in copies for at in starts)
        members = tuple(itertools.chain(*inner))
        parts.append(Part(run.count, members, _parts(inner) if run.period > 1 else ()))
    return tuple(parts)


def _series(block: Block) -> str:
    """The name without its number: what layers of one chain share."""
    return re.sub(r"\d+$", "", block.name)


def _block(
    graph: nx.DiGraph, group: _Group, towers: Mapping[str, str], known: dict[Hashable, str]
) -> Block:
    key = _key(graph, group)
    if key not in known:
        known[key] = fingerprint.signature(graph.subgraph(group.nodes))
    match = LAYER.match(group.name)
    index = int(match[1]) if match else None
    return Block(group.name, towers[group.name], index, group.nodes, known[key])


def _key(graph: nx.DiGraph, group: _Group) -> Hashable:
    """Equal only for blocks that are equal node by node: facts in order, and wires."""
    at = {node: i for i, node in enumerate(group.nodes)}
    wires = tuple(tuple(sorted(at[v] for v in graph.succ[u] if v in at)) for u in group.nodes)
    return tuple((type(node), fingerprint.facts(node)) for node in group.nodes), wires


def _prefix(name: str, names: Container[str]) -> str:
    match = LAYER.match(name)
    if match:
        return match[0]
    path, call, _ = name.partition(":")
    prefix = path.rpartition(".")[0]
    while prefix in names:
        prefix = prefix.rpartition(".")[0]
    return prefix or (path if call else name)


def _local(name: str, prefix: str) -> str:
    return name[len(prefix) + 1 :] if name.startswith((f"{prefix}.", f"{prefix}:")) else name


def _towers(names: Iterable[str]) -> dict[str, str]:
    """Name of each block to its tower: `encoder.layer3`, `encoder.embedding` to `encoder`."""
    names = list(names)
    stems = {_stem(name) for name in names if LAYER.match(name)} - {""}
    by_length = sorted(stems, key=len, reverse=True)
    return {
        name: next((stem for stem in by_length if f"{name}.".startswith(f"{stem}.")), "")
        for name in names
    }


def _stem(name: str) -> str:
    """`decoder.layer3` and `decoder.layers.3` to `decoder`."""
    match = STEM.match(name)
    return match[1] if match else ""


def _named(graph: nx.DiGraph) -> list[_Group]:
    """The groups that the names make, in an order that every edge follows."""
    names = frozenset(node.name for node in graph)
    key: dict[Node, tuple[str, int]] = {node: (_prefix(node.name, names), 0) for node in graph}
    for only_unnumbered in (True, False):
        tangled = _tangled(_quotient(graph, key))
        if tangled:
            key = _cut(graph, key, tangled, only_unnumbered)
    members = defaultdict(list)
    for node in graph:
        members[key[node]].append(node)
    return [
        _Group(name, _ordered(graph, members[name, cut], name))
        for name, cut in _in_order(_quotient(graph, key))
    ]


def _quotient(graph: nx.DiGraph, key: Mapping[Node, tuple[str, int]]) -> nx.DiGraph:
    quotient = nx.DiGraph()
    quotient.add_nodes_from(key.values())
    quotient.add_edges_from((key[u], key[v]) for u, v in graph.edges if key[u] != key[v])
    return quotient


def _tangled(quotient: nx.DiGraph) -> set[tuple[str, int]]:
    """The groups that lie on a cycle of groups."""
    rings = nx.strongly_connected_components(quotient)
    return {group for ring in rings if len(ring) > 1 for group in ring}


def _cut(
    graph: nx.DiGraph,
    key: Mapping[Node, tuple[str, int]],
    tangled: set[tuple[str, int]],
    only_unnumbered: bool,
) -> dict[Node, tuple[str, int]]:
    """Cut tangled groups by the most changes of group on the way to a node.

    Along an edge inside a group that number does not fall and between groups it rises, so when
    all groups are cut no cycle is left. Numbered groups are cut only if nothing else helps.
    """
    changes: dict[Node, int] = {}
    for node in nx.topological_sort(graph):
        changes[node] = max(
            (changes[u] + (key[u] != key[node]) for u in graph.pred[node]), default=0
        )
    return {
        node: (name, changes[node])
        if (name, cut) in tangled and not (only_unnumbered and LAYER.match(name))
        else (name, cut)
        for node, (name, cut) in key.items()
    }


def _in_order(quotient: nx.DiGraph) -> list[tuple[str, int]]:
    """Topological; the tower that is farther from the end first, then by number and name."""
    height: dict[tuple[str, int], int] = {}
    for group in reversed(list(nx.topological_sort(quotient))):
        height[group] = max((height[v] + 1 for v in quotient.succ[group]), default=0)
    towers = _towers(name for name, _ in quotient)
    tallest: dict[str, int] = defaultdict(int)
    for name, cut in quotient:
        tallest[towers[name]] = max(tallest[towers[name]], height[name, cut])

    def rank(group: tuple[str, int]) -> tuple[object, ...]:
        tower = towers[group[0]]
        return -tallest[tower], tower, -height[group], natural(group[0]), group[1]

    return list(nx.lexicographical_topological_sort(quotient, key=rank))


def _ordered(graph: nx.DiGraph, nodes: list[Node], prefix: str) -> tuple[Node, ...]:
    """By local name where names are unique, which they are."""
    inside = graph.subgraph(nodes)
    key = functools.partial(_local_order, prefix=prefix)
    return tuple(nx.lexicographical_topological_sort(inside, key=key))


def _local_order(node: Node, prefix: str) -> list[tuple[int, str]]:
    return natural(_local(node.name, prefix))


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts layer10 after layer9."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]
