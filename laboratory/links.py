"""Links: every collective that a plan of a topology may send, measured there.

Groups of ranks as layouts make them: n ranks at stride s, all such groups at once or a single one
(a tied matrix is summed by one pair of ranks of every pipeline, and a message leaves a node alone).
A sample says over how many nodes its groups are spread (the worst placed, as the planner asks).
"""

from collections.abc import Iterator

from laboratory.topology import Topology
from planner.spec.profile import CollectiveOp, CollectiveSample
from profiler.collectives import CollectiveRequest, measure_collective
from profiler.team import Team

OPS: tuple[CollectiveOp, ...] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "send_recv",
)
KIB, MIB = 1 << 10, 1 << 20
SIZES = (KIB, 32 * KIB, 128 * KIB, 512 * KIB, 2 * MIB)
"""Chosen around the activations of the experiment's model; else times follow straight lines."""
ONE_NUMBER = 4
"""Bytes; what ends the gradient norm has no parts to deal out and takes fewer turns on a ring."""
WHOLE: dict[CollectiveOp, tuple[int, ...]] = {
    "all_reduce": (8 * MIB, 24 * MIB),
    "all_gather": (8 * MIB,),
    "reduce_scatter": (8 * MIB,),
}
"""Around what its gradients and weights take besides; their matrix of tokens has 8 MiB."""
SECONDS = 0.2
"""For one sample; assumed: links that others share need more than a lap or two."""
LEADS, AWAKE_SECONDS = 3.0, 4e-3
"""How much earlier a receiver comes: some latencies and what processes take to wake up; assumed."""


def requests(topology: Topology) -> list[CollectiveRequest]:
    """What is worth measuring."""
    ranks, found = topology.ranks, []
    for size in (n for n in range(2, ranks + 1) if ranks % n == 0):
        for stride in (n for n in range(1, ranks) if ranks % (size * n) == 0):
            several = ranks // size
            for groups in sorted({1, several}):
                found.append((size, groups, stride))
    norm = CollectiveRequest("all_reduce", ranks, 1, ONE_NUMBER)
    return [
        norm,
        *(
            CollectiveRequest(op, size, groups, message, stride)
            for size, groups, stride in found
            for op in OPS
            for message in (*SIZES, *WHOLE.get(op, ()))
            if op != "send_recv" or size == 2
        ),
    ]


def measured(topology: Topology) -> Iterator[CollectiveSample]:
    """Samples of a network that is up (laboratory.network)."""
    lead = LEADS * max(topology.inside.latency_seconds, topology.between.latency_seconds)
    with Team(topology.ranks) as team:
        for request in requests(topology):
            sample = measure_collective(request, team, SECONDS, lead_seconds=lead + AWAKE_SECONDS)
            nodes = max(topology.spread(members) for members in request.members)
            yield sample.model_copy(update={"nodes": nodes})
