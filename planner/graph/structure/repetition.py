"""Repetition: find the layers that a list of operators repeats, and store each once.

Operators carry the path of their module. Siblings whose names differ in a number only
(`layers.0`, `layers.1`; `layer3`; `block@2`, the third call of one module) form a container.
From the top of the module tree down, the first container in which two members have the same
structure is taken, and what lies inside its members is not looked at again. Members of one
operator are no layers. The structure of a member is the hash of its operators in order: their
names relative to the member, kinds, targets, dims, FLOPs forward, output shapes and dtypes, and
of the edges between them. So dense and expert layers of one stack make two structures.

Two members share one entry of the document if all their facts are equal, not only the
structure: totals must come out exactly.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planner.spec.graph import Edge, GraphLayer, GraphOperator, Totals, within

_NUMBERED = re.compile(r"^(?P<stem>[^@]*?)(?P<index>\d*(?:@\d+)?)$")


@dataclass(frozen=True)
class Folded:
    """Operators outside of layers, the layers, and the edges between flat positions."""

    operators: tuple[GraphOperator, ...]
    layers: tuple[GraphLayer, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class _Member:
    """The operators of one candidate layer, by their positions in the unfolded list."""

    container: str
    prefix: str
    positions: tuple[int, ...]
    operators: tuple[GraphOperator, ...]
    edges: tuple[Edge, ...]

    @property
    def structure(self) -> str:
        facts = [_structure(operator) for operator in self.operators]
        return hashlib.sha256(repr((facts, self.edges)).encode()).hexdigest()[:16]

    @property
    def facts(self) -> tuple[object, ...]:
        return (self.edges, *(operator.model_dump_json() for operator in self.operators))


def _structure(operator: GraphOperator) -> tuple[object, ...]:
    dims = tuple(sorted(operator.dims.items()))
    names = (operator.name, operator.kind, operator.target, operator.dtype)
    return (*names, dims, operator.forward_flops, operator.shape)


def layers_of(operators: Sequence[GraphOperator], edges: Iterable[Edge]) -> dict[int, str]:
    """The prefix of the repeated layer each operator lies in, by position; others are absent."""
    members = _found(operators, _successors(edges), "", range(len(operators)))
    return {position: member.prefix for member in members for position in member.positions}


def fold(operators: Sequence[GraphOperator], edges: Iterable[Edge]) -> Folded:
    """Store every distinct layer once. operators: absolute names, in order of execution."""
    after = _successors(edges)
    members = _found(operators, after, "", range(len(operators)))
    same: dict[object, list[_Member]] = defaultdict(list)
    for member in members:
        same[(member.container, member.facts)].append(member)
    home = {p: number for number, member in enumerate(members) for p in member.positions}
    outside = [position for position in range(len(operators)) if position not in home]
    repeated = [p for entry in same.values() for member in entry for p in member.positions]
    place = {position: flat for flat, position in enumerate([*outside, *repeated])}
    between = [
        (place[a], place[b])
        for a, targets in after.items()
        for b in targets
        if a not in home or home[a] != home.get(b)
    ]
    return Folded(
        tuple(operators[position] for position in outside),
        tuple(_layer(entry) for entry in same.values()),
        tuple(sorted(between)),
    )


def _layer(entry: list[_Member]) -> GraphLayer:
    first = entry[0]
    return GraphLayer(
        container=first.container,
        structure=first.structure,
        prefixes=tuple(member.prefix for member in entry),
        operators=first.operators,
        edges=first.edges,
        totals=Totals.of(first.operators),
    )


def _successors(edges: Iterable[Edge]) -> dict[int, set[int]]:
    """The positions that follow each position."""
    after: dict[int, set[int]] = defaultdict(set)
    for a, b in edges:
        after[a].add(b)
    return after


def _found(
    operators: Sequence[GraphOperator],
    after: dict[int, set[int]],
    parent: str,
    positions: Iterable[int],
) -> list[_Member]:
    """The layers among the operators under one module, in order of execution."""
    containers: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position in positions:
        rest = within(parent, operators[position].path)
        if rest:
            child = rest.partition(".")[0]
            containers[_stem(child)][_under(parent, child)].append(position)
    found: list[_Member] = []
    for stem, children in containers.items():
        container = _under(parent, stem) + "*"
        members = [_member(operators, after, container, *child) for child in children.items()]
        layers = [member for member in members if len(member.positions) > 1]
        if len({member.structure for member in layers}) < len(layers):
            found += layers
        else:
            for prefix, inside in children.items():
                found += _found(operators, after, prefix, inside)
    return sorted(found, key=lambda member: member.positions[0])


def _under(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent else child


def _stem(name: str) -> str:
    match = _NUMBERED.match(name)
    return match["stem"] if match else name


def _member(
    operators: Sequence[GraphOperator],
    after: dict[int, set[int]],
    container: str,
    prefix: str,
    positions: list[int],
) -> _Member:
    local = {position: index for index, position in enumerate(positions)}
    edges = sorted((local[a], local[b]) for a in positions for b in after.get(a, ()) if b in local)
    inside = tuple(operators[position].inside(prefix) for position in positions)
    return _Member(container, prefix, tuple(positions), inside, tuple(edges))
