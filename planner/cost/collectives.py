"""Collective time: alpha-beta per tier, gloo and NCCL apart; measured curves where profiled.

n ranks, S bytes of the full tensor, alpha seconds and B bytes/s of the slowest link on the
ring. NCCL, ring algorithms (Thakur et al. 2005; the bandwidth factors of nccl-tests):

    all_reduce                   2(n-1) * alpha + 2(n-1)/n * S / B
    all_gather, reduce_scatter    (n-1) * alpha +  (n-1)/n * S / B
    all_to_all                    (n-1) * alpha +  (n-1)/n * S / B
    broadcast                     (n-1) * alpha +            S / B
    send_recv                             alpha +            S / B

A ring that leaves the smallest tier is as fast as its slowest crossing: k group members in one
domain of the inner tier share its way out, so B = min(B_inner, k * B_outer). Groups that run
side by side on other devices have links of their own. A network shared by d domains gives
B_outer / (1 + congestion * log2 d) (fitted where runs show it). Messages between two ranks use
one link of each tier they cross; in an all_to_all every rank sends (n-k)/n * S out of its domain
through its own. send_recv over n ranks is between neighbours, as slow as the slowest pair.

Where links run from every device to every other and no switch joins them (tier.pairwise), a ring or
an all_to_all of k of a domain's n devices has (k - 1)/(n - 1) of B, a message between two of them
1/(n - 1). Measured: of 8 MI300X 2 reach 48 of 313 GB/s, 45 by this; of 8 V100 2, 3 and 4 reach 23,
46 and 88 of 137 GB/s, 20, 39 and 59 by this (two of their pairs have two links).

An all-reduce takes the best of what NCCL has: the ring; a double binary tree over k members in
each of d domains (Sanders et al. 2009), 2 * (log2(k) * alpha_inner + log2(d) * alpha_outer)
+ 2 * S / B; and, inside one domain with adding switches, the ring at in_network_gain * B.

gloo (measured facts): reduce_scatter takes as long as all_reduce; every ring step waits twice for
its neighbour, so alpha counts double; all_to_all takes 2 alpha however many ranks there are. Its
broadcast is a binomial tree (gloo source, broadcast.cc): ceil(log2 n) * (alpha + S/B). NCCL has
rings only for it, in pieces that follow each other, so each link carries S once.

A profile of the machine replaces the formulas: straight lines between the measured sizes (a
latency and a bandwidth each); below the smallest size a time is constant, above the largest it
grows as over the last two, at least as over all of them and at most in proportion. With a single
size the formula keeps its shape and gets the measurement's height. A measurement that notes
over how many nodes its group was spread stands only for groups spread over as many; where it
crosses nodes, groups share network cards, so it must have been taken with at least as many groups
at once. Of groups at several strides those of the nearest number of groups count, then the nearest
stride. Of results in place and out of place the kind that training uses is taken: all_reduce and
broadcast in place, the others out of place.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.spec.cluster import ClusterSpec, Tier
from planner.spec.profile import CollectiveOp, CollectiveSample, Profile
from planner.spec.provenance import Birth

Floats = NDArray[np.float64]
Curve = Callable[[Floats], Floats]
Lines = tuple[tuple[float, float], ...]
"""Seconds of no bytes and seconds per byte: a formula is the least of its lines."""
MOST_LINES = 2

BANDWIDTH_FACTOR: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "send_recv": lambda n: 1.0,
}
RING_STEPS: dict[str, Callable[[int], int]] = {
    "all_reduce": lambda n: 2 * (n - 1),
    "all_gather": lambda n: n - 1,
    "reduce_scatter": lambda n: n - 1,
    "all_to_all": lambda n: n - 1,
    "broadcast": lambda n: n - 1,
    "send_recv": lambda n: 1,
}

IN_PLACE = ("all_reduce", "broadcast")
"""Collectives whose result overwrites the input in training."""


class CollectiveTimes:
    """Times of collectives on one cluster, as functions of the message size."""

    def __init__(self, cluster: ClusterSpec, profile: Profile | None):
        self._cluster = cluster
        self._samples = tuple(
            sample
            for sample in (profile.collectives if profile else ())
            if sample.backend == cluster.backend
        )
        self.curve = functools.cache(self._curve)
        self.lines = functools.cache(self._lines)

    def seconds(
        self, op: CollectiveOp, ranks: int, stride: int, groups: int, message_bytes: Floats | float
    ) -> Floats:
        """Seconds of collectives of the given full sizes. Zero for one rank or no bytes.

        stride: distance in ranks between group members. groups: how many such groups run at
        the same time on the devices of one pipeline stage.
        """
        sizes = np.asarray(message_bytes, dtype=np.float64)
        if ranks == 1:
            return np.zeros_like(sizes)
        curve, _ = self.curve(op, ranks, stride, groups)
        return np.where(sizes > 0, curve(np.maximum(sizes, 1.0)), 0.0)

    def birth(self, op: CollectiveOp, ranks: int, stride: int, groups: int) -> Birth:
        """How the time of such a collective is known."""
        return "assumed" if ranks == 1 else self.curve(op, ranks, stride, groups)[1]

    def _curve(self, op: CollectiveOp, ranks: int, stride: int, groups: int) -> tuple[Curve, Birth]:
        samples = self._matching(op, ranks, groups, self._nodes(ranks, stride), stride)
        if len(samples) >= 2:
            return _interpolation(samples), "measured"
        formula = _least(_formula(op, ranks, self._route(ranks, stride), self._cluster.backend))
        return (_through(formula, samples[0]), "fitted") if samples else (formula, "assumed")

    def between(self, nodes: int, stride: int, pairs: int) -> Curve | None:
        """Measured seconds of a message by its size, of so many pairs of ranks at once, each in one
        node or in two; None where nobody measured it."""
        samples = self._matching("send_recv", 2, pairs, nodes, stride)
        return _interpolation(samples) if len(samples) >= 2 else None

    def _lines(self, op: CollectiveOp, ranks: int, stride: int) -> Floats:
        """A group's formula where nothing was measured, [2, MOST_LINES]: intercepts, infinite where
        there is no line, and slopes."""
        made = np.zeros((2, MOST_LINES))
        made[0] = np.inf
        if ranks == 1:
            made[0, 0] = 0.0
            return made
        found = _formula(op, ranks, self._route(ranks, stride), self._cluster.backend)
        made[:, : len(found)] = np.array(found).T
        return made

    def _nodes(self, ranks: int, stride: int) -> int:
        """Over how many nodes a group is spread, of several such groups the worst placed."""
        per_node = self._cluster.devices_per_node
        return min(ranks, _domains(ranks * stride, per_node))

    def _matching(
        self,
        op: CollectiveOp,
        ranks: int,
        groups: int,
        nodes: int | None = None,
        stride: int = 1,
    ) -> list[CollectiveSample]:
        """Samples of one case, by size; any spread over nodes where nodes is None.

        Of groups at several strides the nearest one is taken: inside a node they differ little.
        """
        ranks = _partners(op, ranks)
        fitting = [
            s
            for s in self._samples
            if s.op == op and s.ranks == ranks and (nodes is None or _stands_for(s, nodes, groups))
        ]
        closest = min(
            ((s.groups, s.stride or 1) for s in fitting),
            key=lambda case: (abs(case[0] - groups), abs(math.log(case[1] / stride))),
            default=None,
        )
        ordered = sorted(
            (s for s in fitting if (s.groups, s.stride or 1) == closest),
            key=lambda s: s.in_place is (op in IN_PLACE),
        )
        chosen = {s.message_bytes: s for s in ordered}
        return [chosen[size] for size in sorted(chosen)]

    def measured_busy(self, op: CollectiveOp, ranks: int, groups: int) -> int:
        """Ranks that were busy when this collective was measured (ranks itself if never)."""
        samples = self._matching(op, ranks, groups)
        return samples[0].ranks * samples[0].groups if samples else _partners(op, ranks) * groups

    def _route(self, ranks: int, stride: int) -> "Route":
        """What a group of `ranks` at `stride` crosses; of several such groups, the worst placed.

        Groups start at multiples of their span and domains at multiples of their size, so the
        smallest piece of a group inside a domain is as long as the divisor they share. Where
        both are uneven, a group has such a piece at either end (`_domains`).
        """
        span, inner, below = ranks * stride, 1, 0.0
        route = Route(0.0, math.inf, math.inf, 0.0, 0.0, ranks, 1, 1.0)
        for tier in self._cluster.tiers:
            piece = math.gcd(span, inner)
            if piece < span:
                members, domains = max(1, piece // stride), _domains(span, inner)
                slowed = 1 + tier.congestion * math.log2(domains if inner > 1 else 1)
                link = tier.bandwidth_bytes_per_second / slowed
                among, between = _shares(tier, ranks, stride)
                apart = (ranks - members) / ranks / (link * among)
                route = Route(
                    latency=max(route.latency, tier.latency_seconds),
                    bandwidth=min(route.bandwidth, link * members * among),
                    link=min(route.link, link * between),
                    apart_seconds=max(route.apart_seconds, apart),
                    near_latency=below or tier.latency_seconds,
                    members=min(ranks, max(1, inner // stride)) if inner > 1 else ranks,
                    domains=min(ranks, domains) if inner > 1 else 1,
                    gain=tier.in_network_gain,
                )
                below = tier.latency_seconds
            inner = tier.devices
        return route


def _shares(tier: Tier, ranks: int, stride: int) -> tuple[float, float]:
    """What the members of a group in one domain have of its bandwidth, and two of them."""
    span = ranks * stride
    members = ranks if span <= tier.devices else math.gcd(span, tier.devices) // stride
    if not tier.pairwise or members < 2:
        return 1.0, 1.0
    return (members - 1) / (tier.devices - 1), 1 / (tier.devices - 1)


def _domains(span: int, inner: int) -> int:
    """How many domains of `inner` ranks a group over `span` ranks touches at most.

    Groups start at multiples of the span, so at every multiple of the shared divisor of both inside
    a domain, at worst a divisor before its end.
    """
    return -(-(span + inner - math.gcd(span, inner)) // inner)


@dataclass(frozen=True, slots=True)
class Route:
    """The way of a group's messages.

    latency, bandwidth: the slowest on a ring. link: the slowest between two neighbours.
    apart_seconds: per byte that every rank deals out to all. near_latency: inside a domain.
    members, domains: of the group, at most per domain and in all. gain: what adding switches gain
    in one domain.
    """

    latency: float
    bandwidth: float
    link: float
    apart_seconds: float
    near_latency: float
    members: int
    domains: int
    gain: float


def _stands_for(sample: CollectiveSample, nodes: int, groups: int) -> bool:
    """Whether a sample says how long a group over so many nodes takes beside others."""
    if sample.nodes is None:
        return True
    return sample.nodes == nodes and (nodes == 1 or sample.groups >= groups)


def _formula(op: CollectiveOp, n: int, route: Route, backend: str) -> Lines:
    if backend == "gloo":
        return _gloo(op, n, route)
    return _all_reduce(n, route) if op == "all_reduce" else _ring(op, n, route)


def _least(lines: Lines) -> Curve:
    """The least of some lines."""

    def curve(sizes: Floats) -> Floats:
        found = [start + sizes * per_byte for start, per_byte in lines]
        return functools.reduce(np.minimum, found)

    return curve


def _partners(op: CollectiveOp, ranks: int) -> int:
    """How many ranks one such operation joins: send_recv two of them."""
    return 2 if op == "send_recv" else ranks


def _byte_seconds(op: CollectiveOp, n: int, route: Route) -> float:
    """Seconds per byte of the full tensor, by ring or directly."""
    if op == "all_to_all":
        return route.apart_seconds
    if op == "send_recv":
        return 1 / route.link
    return BANDWIDTH_FACTOR[op](n) / route.bandwidth


def _ring(op: CollectiveOp, n: int, route: Route) -> Lines:
    return ((RING_STEPS[op](n) * route.latency, _byte_seconds(op, n, route)),)


def _all_reduce(n: int, route: Route) -> Lines:
    """By a ring; over several domains by a tree; inside one by a switch that adds."""
    lines = _ring("all_reduce", n, route)
    if route.domains > 1:
        up = math.log2(route.members) * route.near_latency
        up += math.log2(route.domains) * route.latency
        up = min(up, math.log2(n) * route.latency)  # a group may straddle: members * domains > n
        lines += ((2 * up, 2 / route.bandwidth),)
    elif route.gain > 1:
        factor = BANDWIDTH_FACTOR["all_reduce"](n)
        lines += ((2 * route.latency, factor / (route.gain * route.bandwidth)),)
    return lines


def _gloo(op: CollectiveOp, n: int, route: Route) -> Lines:
    if op == "broadcast":
        levels = math.ceil(math.log2(n))
        return ((levels * route.latency, levels / route.link),)
    steps = {"all_to_all": 2, "send_recv": 1}.get(op, 2 * RING_STEPS[op](n))
    same: CollectiveOp = "all_reduce" if op == "reduce_scatter" else op
    return ((steps * route.latency, _byte_seconds(same, n, route)),)


def _through(formula: Curve, sample: CollectiveSample) -> Curve:
    """A formula scaled to one measurement."""
    ratio = sample.seconds / float(formula(np.asarray(max(1.0, sample.message_bytes))))
    return lambda sizes: ratio * formula(sizes)


def _interpolation(samples: list[CollectiveSample]) -> Curve:
    sizes = np.array([s.message_bytes for s in samples], dtype=np.float64)
    seconds = np.maximum.accumulate([s.seconds for s in samples])
    slopes = (seconds[-1] - seconds[[-2, 0]]) / (sizes[-1] - sizes[[-2, 0]])
    slope = min(slopes.max(), seconds[-1] / sizes[-1])

    def curve(message_bytes: Floats) -> Floats:
        inside = np.interp(message_bytes, sizes, seconds)
        result: Floats = inside + slope * np.maximum(message_bytes - sizes[-1], 0.0)
        return result

    return curve
