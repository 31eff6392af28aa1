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
side by side on other devices have links of their own.

gloo (measured facts): reduce_scatter takes as long as all_reduce, and every ring step waits
twice for its neighbour, so alpha counts double except in all_to_all and send_recv.

A profile of the machine replaces the formulas: log-log interpolation between the measured
sizes, proportional above the largest and constant below the smallest one.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from planner.spec.cluster import ClusterSpec
from planner.spec.profile import CollectiveOp, CollectiveSample, Profile
from planner.spec.provenance import Birth

Floats = NDArray[np.float64]
Curve = Callable[[Floats], Floats]

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
        samples = self._matching(op, ranks, groups)
        if len(samples) >= 2:
            return _interpolation(samples), "measured"
        latency, bandwidth = self._link(ranks, stride)
        return _formula(op, ranks, latency, bandwidth, self._cluster.backend), "assumed"

    def _matching(self, op: CollectiveOp, ranks: int, groups: int) -> list[CollectiveSample]:
        fitting = [s for s in self._samples if s.op == op and s.ranks == ranks]
        closest = min((s.groups for s in fitting), key=lambda g: abs(g - groups), default=None)
        chosen = {s.message_bytes: s for s in fitting if s.groups == closest}
        return [chosen[size] for size in sorted(chosen)]

    def measured_busy(self, op: CollectiveOp, ranks: int, groups: int) -> int:
        """Ranks that were busy when this collective was measured (ranks itself if never)."""
        samples = self._matching(op, ranks, groups)
        return samples[0].ranks * samples[0].groups if samples else ranks * groups

    def _link(self, ranks: int, stride: int) -> tuple[float, float]:
        """Latency and bandwidth of the slowest crossing of a ring of `ranks` at `stride`."""
        span = ranks * stride
        tiers = self._cluster.tiers
        latency, bandwidth = 0.0, np.inf
        inner = 1
        for tier in tiers:
            members = max(1, inner // stride)
            crossing = tier.bandwidth_bytes_per_second * min(members, ranks)
            if span > inner:
                bandwidth = min(
                    bandwidth, crossing if inner > 1 else crossing / min(members, ranks)
                )
                latency = max(latency, tier.latency_seconds)
            inner = tier.devices
        return latency, float(bandwidth)


def _formula(op: CollectiveOp, n: int, latency: float, bandwidth: float, backend: str) -> Curve:
    factor, steps = BANDWIDTH_FACTOR[op](n), RING_STEPS[op](n)
    if backend == "gloo":
        factor = BANDWIDTH_FACTOR["all_reduce"](n) if op == "reduce_scatter" else factor
        steps *= 1 if op in ("all_to_all", "send_recv") else 2
    return lambda sizes: steps * latency + factor * sizes / bandwidth


def _interpolation(samples: list[CollectiveSample]) -> Curve:
    sizes = np.log([max(1.0, s.message_bytes) for s in samples])
    seconds = np.log(np.maximum.accumulate([s.seconds for s in samples]))

    def curve(message_bytes: Floats) -> Floats:
        logs = np.log(message_bytes)
        inside = np.interp(logs, sizes, seconds)
        beyond = np.maximum(logs - sizes[-1], 0.0)
        result: Floats = np.exp(inside + beyond)
        return result

    return curve
