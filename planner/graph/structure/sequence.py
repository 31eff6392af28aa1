"""Layers of a graph whose names tell nothing: the repeated segment of its operators.

1. Order. A graph has many topological orders; one is chosen that meets every layer the same way,
   whatever the names and the order of insertion: depth first from the last sink, an operator
   right before its first reader (so a side input of a layer stands in that layer), the inputs of
   an operator by their facts. What is read over more than half of the graph's depth (rotary
   tables, masks, an encoder's output) comes first, with all that it needs. What ends beside the
   last sink (a cache, a router's loss) comes right after what it reads.
2. Period. An operator at place i becomes the token (facts, distances i - j to what it reads), a
   distance beyond the period or to what came first only as "far". Equal tokens a period apart
   mean equal layers, wired equally, in series. The run that saves most is taken
   (planner.graph.structure.runs), then the same again before and after it.
3. Cut. A run is often longer than its copies, so they can begin at several places. They begin
   where fewest values pass from one copy to the next, then where these are read most often (the
   residual stream forks where a block begins), then where more repeats before and after, then
   first.

Cost: O(V log V + E) for the order, O(g (V + E)) for the periods, with g different gaps between
equal operators, a few dozen in practice. What it leaves out: layers that differ in any fact are
not equal, and a layer met through different inputs (often the first) may stay outside the run.
"""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import networkx as nx

from planner.graph.operator import Node
from planner.graph.structure import fingerprint
from planner.graph.structure.depths import depths
from planner.graph.structure.runs import Run, longest, stretches

LEAST = 2
"""A repeated segment has at least two operators; two equal ones in a row are not layers."""

Key = tuple[str, tuple[str, ...], tuple[str, ...], str, str]


def pieces(graph: nx.DiGraph) -> list[tuple[str, tuple[Node, ...]]]:
    """(name, nodes) of the segments in order: `block0`, `block1`, ... for copies, else `part0`."""
    order, wide = canonical_order(graph), widely_read(graph)
    numbers = {"block": itertools.count(), "part": itertools.count()}
    found = []
    for run in _cover(_Wires(graph, frozenset(wide)), order, 0, len(order)):
        kind = "block" if run.count > 1 else "part"
        for start in range(run.start, run.stop, run.period):
            nodes = tuple(order[start : start + run.period])
            found.append((f"{kind}{next(numbers[kind])}", nodes))
    return found


@dataclass(frozen=True)
class _Wires:
    """A graph, and its nodes that are read from everywhere, so that a distance says nothing."""

    graph: nx.DiGraph
    wide: frozenset[Node]


def _cover(wires: _Wires, order: Sequence[Node], start: int, stop: int) -> Iterator[Run]:
    run = _well_cut(wires, order[start:stop])
    if run is None:
        if start < stop:
            yield Run(start, stop - start, 1)
        return
    yield from _cover(wires, order, start, start + run.start)
    yield Run(start + run.start, run.period, run.count)
    yield from _cover(wires, order, start + run.stop, stop)


def _repeated(wires: _Wires, order: Sequence[Node]) -> tuple[Run, int] | None:
    """The run that saves most in a stretch, and by how many places it can begin later."""
    facts = [fingerprint.own(node) for node in order]
    reads = _distances(wires, order)

    def at(period: int) -> list[Hashable]:
        return [
            (fact, tuple(min(distance, period + 1) for distance in distances))
            for fact, distances in zip(facts, reads, strict=True)
        ]

    run = longest(facts, at, LEAST)
    if run is None:
        return None
    found = stretches(at(run.period), run.period)
    return run, next(stop for start, stop in found if start == run.start) - run.stop


def _distances(wires: _Wires, order: Sequence[Node]) -> list[list[int]]:
    """How far back each operator reads; what is outside the stretch or wide is far."""
    place = {node: i for i, node in enumerate(order) if node not in wires.wide}
    return [
        sorted(i - place.get(u, -len(order)) for u in wires.graph.pred[node])
        for i, node in enumerate(order)
    ]


def _well_cut(wires: _Wires, order: Sequence[Node]) -> Run | None:
    """The run that saves most, begun at the best of the places where it can begin."""
    found = _repeated(wires, order)
    if found is None:
        return None
    run, slack = found
    crossing = _crossing(wires, order, run, slack)
    least = min(crossing)
    starts = [run.start + shift for shift in range(slack + 1) if crossing[shift] == least]
    if len(starts) > 1:
        length = run.period * run.count
        starts.sort(key=lambda at: -_saved(wires, order[:at]) - _saved(wires, order[at + length :]))
    return Run(starts[0], run.period, run.count)


def _saved(wires: _Wires, order: Sequence[Node]) -> int:
    found = _repeated(wires, order)
    return found[0].saved if found else 0


def _crossing(wires: _Wires, order: Sequence[Node], run: Run, slack: int) -> list[tuple[int, int]]:
    """For every later beginning: values that pass to the second copy, minus their readers."""
    values: list[set[int]] = [set() for _ in range(slack + 1)]
    readers = [0] * (slack + 1)
    for v, distances in enumerate(_distances(wires, order)):
        for distance in distances:
            first = v - distance + 1 - run.start - run.period
            last = v - run.start - run.period
            if distance <= run.period:
                for shift in range(max(first, 0), min(last, slack) + 1):
                    values[shift].add(v - distance)
                    readers[shift] += 1
    return [(len(v), -r) for v, r in zip(values, readers, strict=True)]


def canonical_order(graph: nx.DiGraph) -> list[Node]:
    """The topological order of step 1."""
    key = _keys(graph)
    depth = depths(graph)
    sinks = [node for node in graph if not graph.succ[node]]
    if not sinks:
        return []
    main = max(sinks, key=lambda node: (depth[node], key[node]))
    wanted = nx.ancestors(graph, main) | {main}
    early = widely_read(graph) & wanted
    roots = [*sorted(early, key=lambda node: (depth[node], key[node])), main]
    return _with_sides(graph, _postorder(graph, roots, key), key)


def widely_read(graph: nx.DiGraph) -> set[Node]:
    """The nodes that are read over more than half of the graph's depth."""
    depth = depths(graph)
    far = max(depth.values(), default=0) / 2
    return {
        node
        for node in graph
        if max((depth[v] for v in graph.succ[node]), default=0) - depth[node] > far
    }


def _keys(graph: nx.DiGraph) -> dict[Node, Key]:
    """What orders nodes alike in every layer: facts, neighbours' facts; then marks and names."""
    own = {node: fingerprint.own(node) for node in graph}
    marks = fingerprint.marks(graph)
    return {
        node: (
            own[node],
            tuple(sorted(own[u] for u in graph.pred[node])),
            tuple(sorted(own[v] for v in graph.succ[node])),
            marks[node],
            node.name,
        )
        for node in graph
    }


def _postorder(graph: nx.DiGraph, roots: Sequence[Node], key: dict[Node, Key]) -> list[Node]:
    done: dict[Node, None] = {}
    stack = list(reversed(roots))
    while stack:
        node = stack[-1]
        waiting = [u for u in graph.pred[node] if u not in done]
        if not waiting or node in done:
            done.setdefault(stack.pop())
        else:
            stack += sorted(waiting, key=lambda u: key[u], reverse=True)
    return list(done)


def _with_sides(graph: nx.DiGraph, order: Sequence[Node], key: dict[Node, Key]) -> list[Node]:
    """Put every node that leads elsewhere right after the last thing it reads."""
    inside = set(order)
    missing = {node: len(graph.pred[node]) for node in graph if node not in inside}
    found: list[Node] = sorted(
        (n for n, count in missing.items() if not count), key=lambda n: key[n]
    )
    found = [side for source in found for side in _released(graph, source, missing, key)]
    for node in order:
        found += _released(graph, node, missing, key)
    return found


def _released(
    graph: nx.DiGraph, node: Node, missing: dict[Node, int], key: dict[Node, Key]
) -> Iterator[Node]:
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        ready = []
        for v in graph.succ[current]:
            if v in missing:
                missing[v] -= 1
                if not missing[v]:
                    ready.append(v)
        stack += sorted(ready, key=lambda v: key[v], reverse=True)
