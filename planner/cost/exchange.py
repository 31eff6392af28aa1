"""Exchange: the collectives of a block under one division, or under a column of divisions.

A block sends many messages over few groups (those of tp, cp, ep and etp), often of the same size:
forward, again in a recomputation, and backward. Groups are told apart once per axis, and a message
of an operation and size is costed once.

The copies of a token that go to K experts on other nodes may travel once to each node and be dealt
out there. Of d nodes with as many experts each, K drawn ones lie on d (1 - (1 - 1/d)**K) of them,
so that instead of the whole message

    d / K * (1 - (1 - 1/d)**K)

of it crosses (less where routing prefers few nodes; the way inside a node is not counted).

A host waits for what its messages would take inside the innermost domain, not for the network: on
vTrain's tp of 2 to 8 it does (held out 5.9 % with, 8.3 % without), while tp=16 and 32 over nodes
took Ultra-Scale 7.8 and 15.3 ms a layer, of which the network's latency alone is 7.4 and 14.6, and
the host's 3.9 ms do not show.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from planner.cost.collectives import RING_STEPS
from planner.cost.divisions import Division
from planner.cost.groups import Collective as Seconds
from planner.cost.groups import Groups, LinesOf
from planner.graph.operator import Collective, Group


class Exchange:
    """seconds_of: a collective's seconds by (op, ranks, stride, groups, size); lines: as in
    planner.cost.groups. per_node: devices of a node where tokens are sent to it once, else None.
    near: devices of the innermost domain and the latency there, where others lie behind it."""

    def __init__(
        self,
        seconds_of: Seconds,
        lines: LinesOf | None,
        division: Division,
        per_node: int | None = None,
        near: tuple[int, float] | None = None,
    ):
        self.seconds_of, self.lines, self.division = seconds_of, lines, division
        self.per_node, self.near = per_node, near
        self._groups: dict[Group, Groups] = {}
        self._known: dict[tuple[str, Group, int, int], tuple[Any, float]] = {}

    def over(self, nodes: Sequence[Collective]) -> float:
        """Seconds of collectives one after the other."""
        return sum(node.count * self.seconds(node) for node in nodes)

    def latency(self, nodes: Sequence[Collective]) -> float:
        """Seconds that a host waits: of the same collectives of nothing (one byte), as if they
        stayed inside the innermost domain."""
        return sum(node.count * self._waited(node) for node in nodes)

    def _waited(self, node: Collective) -> float:
        whole = self._seconds(node, 1)
        if self.near is None:
            return whole
        (devices, latency), (ranks, stride, _) = self.near, self._group(node.axis)
        inside = np.minimum(whole, RING_STEPS[node.op](ranks) * latency)
        waited: Any = np.where(ranks * stride > devices, inside, whole)
        seconds: float = waited if np.ndim(waited) else float(waited)
        return seconds

    def seconds(self, node: Collective) -> float:
        """Seconds of one collective."""
        return self._seconds(node, node.message_bytes)

    def _seconds(self, node: Collective, size: int) -> float:
        """A column passes for the number that it stands for. Sizes are known by the object, which
        is kept so that no other takes its place."""
        known = id(size) if isinstance(size, np.ndarray) else size
        key = node.op, node.axis, node.copies, known
        if key not in self._known:
            self._known[key] = size, self._costed(node, size)
        return self._known[key][1]

    def _costed(self, node: Collective, size: int) -> float:
        ranks, stride, side = self._group(node.axis)
        if node.copies > 1 and self.per_node is not None:
            size = size * once_to_a_node(node.copies, ranks, stride, self.per_node)
        if not any(isinstance(each, np.ndarray) for each in (ranks, stride, size)):
            return float(self.seconds_of(node.op, ranks, stride, side, size))
        rows = np.size(self.division.micro_batch)
        if node.axis not in self._groups:
            places = np.asarray(ranks), np.asarray(stride), np.asarray(side)
            self._groups[node.axis] = Groups.of(*places, rows)
        groups = self._groups[node.axis]
        if isinstance(size, np.ndarray):
            sizes = np.broadcast_to(np.asarray(size, dtype=np.float64), rows)
            found: Any = groups.seconds(self.seconds_of, self.lines, node.op, sizes)
        else:
            found = groups.alike(self.seconds_of, self.lines, node.op, size)
        seconds: float = found
        return seconds

    def _group(self, axis: Group) -> tuple[int, int, int]:
        division = self.division
        found: dict[Group, tuple[int, int]] = {
            "tp": (division.tp, division.stride),
            "cp": (division.cp, division.cp_stride),
            "ep": (division.ep, division.ep_stride),
            "etp": (division.etp, division.ep_stride // division.etp),
        }
        return (*found[axis], division.groups)


def once_to_a_node(copies: int, ranks: Any, stride: Any, per_node: int) -> Any:
    """The share of a message that crosses nodes (see the top of the file), 1 inside a node."""
    nodes = np.minimum(-(-(ranks * stride) // per_node), ranks)
    share = nodes / copies * (1 - (1 - 1 / nodes) ** copies)
    return np.where(nodes > 1, np.minimum(share, 1.0), 1.0)
