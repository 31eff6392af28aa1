"""How many operators could run at once, and what the critical path is.

For a weight w(v) >= 0 (FLOPs, seconds, or 1 per operator) on a graph without cycles:

    work           W = sum of w(v)                          one device, one operator at a time
    critical path  C = max over paths of the sum of w(v)    no number of devices beats it
    average        W / C                                    operators at once on average (Brent)
    levels         L_i = operators whose longest way from a source has i edges
    width          the most operators no two of which depend on each other

The width is the size of a maximum antichain, by Dilworth (1950) the least number of chains that
cover the graph, V minus a maximum matching of the pairs u < v of the transitive closure; the
antichain itself comes from the least vertex cover (König 1931). Before that, the graph is cut
in series at every operator that all others come before or after (the residual stream passes
through one after each half of a layer), because an antichain lies on one side of such a cut;
pieces of equal shape are solved once. So a decoder of 126 layers costs one attention and one
MLP. Encoder and decoder have no such cut between them (the decoder's first self-attention does
not wait for the encoder) and make one piece.

Cost: O(V + E) for all but the width; a piece of n operators takes O(n) words of n bits for the
closure and at most n searches of O(n^2 / 64 + n). A piece of more than LARGEST operators is not
matched; its largest level is a lower bound and `exact` is False.
"""

import string
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from planner.graph.operator import Node, Operator
from planner.graph.structure.depths import depths
from planner.graph.structure.outline import LAYER
from planner.graph.structure.runs import runs

SHOWN = 6
"""Operators that a text names as an example."""
LARGEST = 4096
"""The most operators of a piece whose width is computed exactly."""

Weight = Callable[[Node], float]


@dataclass(frozen=True, slots=True)
class Parallelism:
    """What a graph allows.

    operators, edges: its size. work, critical: in the unit of the weight. path: the operators of
    the critical path. width: operators that could run at once; widest: such operators; exact:
    False if more than `width` may be possible. levels: operators per level.
    """

    operators: int
    edges: int
    work: float
    critical: float
    path: tuple[Node, ...]
    width: int
    widest: tuple[Node, ...]
    exact: bool
    levels: tuple[int, ...]

    @property
    def average(self) -> float:
        """Work over critical path; 1 where there is no work."""
        return self.work / self.critical if self.critical else 1.0


def flops(node: Node) -> float:
    """Forward FLOPs: the weight unless another is given."""
    return float(node.forward_flops) if isinstance(node, Operator) else 0.0


def one(node: Node) -> float:
    """Every operator weighs the same."""
    return 1.0


def summary(graph: nx.DiGraph, weight: Weight = flops) -> Parallelism:
    """Work, critical path, width and levels of a graph."""
    path = critical_path(graph, weight)
    widest, exact = widest_set(graph)
    return Parallelism(
        operators=len(graph),
        edges=graph.number_of_edges(),
        work=sum(map(weight, graph)),
        critical=sum(map(weight, path)),
        path=path,
        width=len(widest),
        widest=widest,
        exact=exact,
        levels=levels(graph),
    )


def said(found: Parallelism, unit: str = "FLOPs") -> tuple[str, ...]:
    """Width and critical path in words, equal layers said once. unit: of the weight."""
    share = found.critical / found.work if found.work else 1.0
    at_least = "" if found.exact else "at least "
    for_example = ", ".join(node.name for node in found.widest[:SHOWN])
    more = ", …" if len(found.widest) > SHOWN else ""
    return (
        f"operators that could run at once: {at_least}{found.width} of {found.operators} "
        f"({for_example}{more})",
        f"on average: {found.average:.2f} (work over critical path, in {unit})",
        f"critical path: {len(found.path)} operators with {share:.1%} of the {unit}: "
        f"{path_text(found.path)}",
    )


def path_text(path: Sequence[Node]) -> str:
    """`embedding.tokens → 32 × (layer.attention.norm → …) → head.loss`."""
    names = [_unnumbered(node.name) for node in path]
    pieces = []
    for run in runs(names):
        inner = " → ".join(names[run.start : run.start + run.period])
        pieces.append(f"{run.count} × ({inner})" if run.count > 1 else inner)
    return " → ".join(pieces)


def _unnumbered(name: str) -> str:
    match = LAYER.match(name)
    if match is None:
        return name
    return match[0].rstrip(string.digits).rstrip(".") + name[match.end() :]


def critical_path(graph: nx.DiGraph, weight: Weight = flops) -> tuple[Node, ...]:
    """The path of the largest weight; of equal ones, one with the most operators."""
    best: dict[Node, tuple[float, int]] = {}
    before: dict[Node, Node] = {}
    for node in nx.topological_sort(graph):
        cost, length = 0.0, 0
        for other in sorted(graph.pred[node], key=lambda u: u.name):
            if best[other] > (cost, length):
                (cost, length), before[node] = best[other], other
        best[node] = (cost + weight(node), length + 1)
    if not best:
        return ()
    path = [max(best, key=lambda v: (best[v], v.name))]
    while path[-1] in before:
        path.append(before[path[-1]])
    return tuple(reversed(path))


def levels(graph: nx.DiGraph) -> tuple[int, ...]:
    """Operators at each number of edges from the sources, if each starts as soon as it can."""
    counts = Counter(depths(graph).values())
    return tuple(counts[depth] for depth in range(len(counts)))


def widest_set(graph: nx.DiGraph) -> tuple[tuple[Node, ...], bool]:
    """Most operators of which none depends on another, and whether no set is larger."""
    solved: dict[Hashable, tuple[tuple[int, ...], bool]] = {}
    widest: tuple[Node, ...] = ()
    all_exact = True
    for piece in series_pieces(graph):
        shape = _shape(graph, piece)
        if shape not in solved:
            solved[shape] = _antichain(shape)
        places, exact = solved[shape]
        all_exact &= exact
        if len(places) > len(widest):
            widest = tuple(piece[place] for place in places)
    return widest, all_exact


def series_pieces(graph: nx.DiGraph) -> Iterator[list[Node]]:
    """The pieces between the operators that every other one comes before or after, and those.

    Such an operator is alone among the ready ones when its turn comes, forwards and backwards
    (whatever else were ready would be neither before nor after it), and then all that is left
    depends on it. Forwards it has P operators behind it and backwards Q; all others come before
    or after it exactly if P + Q = V - 1.
    """
    order, forwards = _alone(graph, graph.pred, graph.succ)
    _, backwards = _alone(graph, graph.succ, graph.pred)
    piece: list[Node] = []
    for node in order:
        if node in forwards and forwards[node] + backwards.get(node, -1) == len(graph) - 1:
            if piece:
                yield piece
            yield [node]
            piece = []
        else:
            piece.append(node)
    if piece:
        yield piece


def _alone(
    graph: nx.DiGraph, before: nx.DiGraph, after: nx.DiGraph
) -> tuple[list[Node], dict[Node, int]]:
    """A topological order, and how many were done when a node was the only one ready."""
    waits = {node: len(before[node]) for node in graph}
    ready = [node for node, count in waits.items() if not count]
    order: list[Node] = []
    alone: dict[Node, int] = {}
    while ready:
        node = ready.pop()
        if not ready:
            alone[node] = len(order)
        order.append(node)
        for other in after[node]:
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)
    return order, alone


Shape = tuple[tuple[int, ...], ...]
"""For each place in topological order, the places that read it."""


def _shape(graph: nx.DiGraph, piece: Sequence[Node]) -> Shape:
    at = {node: place for place, node in enumerate(piece)}
    return tuple(tuple(sorted(at[v] for v in graph.succ[u] if v in at)) for u in piece)


def _antichain(shape: Shape) -> tuple[tuple[int, ...], bool]:
    if len(shape) > LARGEST:
        return _largest_level(shape), False
    after = _closure(shape)
    chains = _Chains(shape, after)
    left, right = chains.reached()
    return tuple(v for v in range(len(shape)) if left >> v & 1 and not right >> v & 1), True


def _largest_level(shape: Shape) -> tuple[int, ...]:
    depth = [0] * len(shape)
    for u, readers in enumerate(shape):
        for v in readers:
            depth[v] = max(depth[v], depth[u] + 1)
    largest = Counter(depth).most_common(1)[0][0]
    return tuple(v for v, found in enumerate(depth) if found == largest)


def _closure(shape: Shape) -> list[int]:
    """For each place the set of all later places that depend on it, as bits."""
    after = [0] * len(shape)
    for u in reversed(range(len(shape))):
        for v in shape[u]:
            after[u] |= after[v] | 1 << v
    return after


class _Chains:
    """The least number of chains that cover a shape, as a maximum matching (Berge 1957).

    follower, leader: the next and the previous place in a chain, -1 for none. free: the places
    without a leader, as bits.
    """

    def __init__(self, shape: Shape, after: Sequence[int]) -> None:
        self.after = after
        self.follower, self.leader = [-1] * len(shape), [-1] * len(shape)
        self.free = (1 << len(shape)) - 1
        for u in reversed(range(len(shape))):
            free = next((v for v in shape[u] if self.free >> v & 1), None)
            if free is not None:
                self._join(u, free)
        while self._grow():
            pass

    def _join(self, u: int, v: int) -> None:
        self.follower[u], self.leader[v] = v, u
        self.free &= ~(1 << v)

    def _grow(self) -> bool:
        """One search from the end of every chain; places seen in vain are not seen again."""
        grown, unseen = False, (1 << len(self.after)) - 1
        for u in range(len(self.after)):
            if self.follower[u] < 0:
                found, unseen = self._augment(u, unseen)
                grown |= found
        return grown

    def _augment(self, end: int, unseen: int) -> tuple[bool, int]:
        """Follow alternating pairs from the end of a chain to a free place and swap them."""
        came: dict[int, int] = {}
        queue = [end]
        for u in queue:
            new = self.after[u] & unseen
            if new & self.free:
                v = next(_bits(new & self.free))
                self._swap(u, v, came)
                return True, unseen & ~(1 << v)
            unseen &= ~new
            for v in _bits(new):
                came[self.leader[v]] = u
                queue.append(self.leader[v])
        return False, unseen

    def _swap(self, u: int, v: int, came: Mapping[int, int]) -> None:
        while v >= 0:
            left = self.follower[u]
            self._join(u, v)
            u, v = came.get(u, -1), left

    def reached(self) -> tuple[int, int]:
        """What alternating ways from the ends of chains reach, as first and second of a pair."""
        queue = [u for u, v in enumerate(self.follower) if v < 0]
        left, right = sum(1 << u for u in queue), 0
        for u in queue:
            new = self.after[u] & ~right
            right |= new
            for v in _bits(new):
                left |= 1 << self.leader[v]
                queue.append(self.leader[v])
        return left, right


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
