"""Host: what launching a layer takes, and what of it the device does not hide.

    layer, experts    seconds of the host for one layer's forward and backward, and for the experts
                      that a rank holds; FORWARD_SHARE of both in the forward

A host that runs ahead hides behind everything that the device does. One that must know how many
tokens each expert has (runtime.waits_for_counts) waits for the router in every forward: launching
the experts hides behind the experts only, launching the rest behind the rest,

    forward = launched(routed, experts) + launched(device - routed, layer)

instead of launched(device, layer + experts), which is never more (planner.cost.overlap has the
rounded maximum). A backward knows the counts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planner.cost import overlap
from planner.cost.column import smaller
from planner.cost.exchange import Exchange
from planner.graph.operator import Collective
from planner.spec.runtime import Runtime

FORWARD_SHARE = 1 / 3
"""Assumed: a backward launches about twice the kernels of a forward."""


class Host(NamedTuple):
    """Seconds of the host for a layer, for its experts, and whether it waits for their counts."""

    layer: float
    experts: float
    waits: bool

    @classmethod
    def of(cls, runtime: Runtime, experts: int) -> "Host":
        """For a layer of which a rank holds so many experts."""
        held = runtime.expert_host_seconds * experts
        waits = runtime.waits_for_counts and bool(np.any(experts))
        return cls(runtime.layer_host_seconds, held, waits)

    def ahead(
        self,
        compute: float,
        exchange: float,
        routed: float,
        nodes: Sequence[Collective],
        sent: Exchange,
    ) -> float:
        """Compute of a forward. exchange: exposed; routed: what of the compute works on copies of
        tokens; nodes: all that is sent."""
        layer, experts = self.layer * FORWARD_SHARE, self.experts * FORWARD_SHARE
        if not self.waits:
            return _launched(compute, exchange, layer + experts, nodes, sent)
        apart = [node for node in nodes if node.axis in ("ep", "etp")]
        rest = [node for node in nodes if node.axis not in ("ep", "etp")]
        copies = smaller(sent.over(apart), exchange)
        first = _launched(routed, copies, experts, apart, sent)
        return first + _launched(compute - routed, exchange - copies, layer, rest, sent)

    def behind(
        self, compute: float, exchange: float, nodes: Sequence[Collective], sent: Exchange
    ) -> float:
        """Compute of a backward."""
        host = (self.layer + self.experts) * (1 - FORWARD_SHARE)
        return _launched(compute, exchange, host, nodes, sent)


def _launched(
    compute: float, exchange: float, host: float, nodes: Sequence[Collective], sent: Exchange
) -> float:
    """Compute of a pass that the host launches in `host` seconds.

    A collective of nothing still takes its latency, and the host waits for it.
    """
    if not np.any(host):
        return compute
    return overlap.launched(compute + exchange, host, sent.latency(nodes)) - exchange
