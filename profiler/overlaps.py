"""Overlaps: what computing and a collective cost each other (profiler.interference measures).

The sample holds the medians over rounds and ranks. A profile's overlap_slowdown is the factor by
which computing takes longer while a collective runs, of the largest messages, the median over
operations:

    factor = 1 / (1 - min(slowdown, MOST)),   slowdown = (C' - C) / X

in a second beside the collective only 1 - slowdown seconds of computing are done.
"""

import statistics
from collections.abc import Sequence

from planner.spec.profile import CollectiveOp, OverlapSample
from profiler import collectives
from profiler.collectives import CollectiveRequest
from profiler.kinds import OperatorRequest
from profiler.stopwatch import spread
from profiler.team import Team

OPS: tuple[CollectiveOp, ...] = ("all_reduce", "all_gather", "reduce_scatter")
"""What training hides: gradients and the parameters of ZeRO, tensor parallelism in pieces."""
SIZES = {"cpu": (256 << 10, 4 << 20), "cuda": (4 << 20, 64 << 20)}
WIDTH = {"cpu": 256, "cuda": 4096}
"""Of the square product that runs beside: milliseconds on a GPU of 2026 at most."""
SECONDS = 0.3
MOST = 0.9


def requests(max_ranks: int, device: str) -> list[CollectiveRequest]:
    """All ranks in one group at all sizes, largest first, then in pairs at the largest."""
    if max_ranks < 2:
        return []
    sizes = sorted(SIZES[device], reverse=True)
    whole = [CollectiveRequest(op, max_ranks, 1, size) for size in sizes for op in OPS]
    if max_ranks < 4:
        return whole
    return whole + [CollectiveRequest(op, 2, max_ranks // 2, sizes[0]) for op in OPS]


def compute_of(device: str, dtype: str) -> OperatorRequest:
    """The product that runs beside."""
    width = WIDTH[device]
    return OperatorRequest("matmul_nt", {"m": width, "n": width, "k": width}, dtype)


def key(request: CollectiveRequest, device: str, dtype: str) -> tuple[object, ...]:
    """That of its sample."""
    case = (request.op, collectives.backend(device), request.ranks, request.groups)
    return (*case, float(request.message_bytes), str(compute_of(device, dtype)), dtype)


def measure_overlap(
    request: CollectiveRequest, team: Team, dtype: str, seconds: float = SECONDS
) -> OverlapSample:
    """The sample of one collective beside computing. Raises RunError when a worker fails."""
    team.join(request.members)
    compute = compute_of(team.device, dtype)
    results: list[list[list[float]]] = team.run(
        "overlap",
        request.busy,
        op=request.op,
        groups=request.members,
        message_bytes=request.message_bytes,
        request=(compute.kind, compute.dims, compute.dtype),
        seconds=seconds,
    )
    rounds = [each for rank in results for each in rank]
    alone, sent, beside, sent_beside = (
        statistics.median(each[part] for each in rounds) for part in range(4)
    )
    return OverlapSample.model_validate(
        {
            "op": request.op,
            "backend": collectives.backend(team.device),
            "ranks": request.ranks,
            "groups": request.groups,
            "message_bytes": request.message_bytes,
            "compute": str(compute),
            "dtype": dtype,
            "compute_seconds": alone,
            "collective_seconds": sent,
            "compute_beside_seconds": beside,
            "collective_beside_seconds": sent_beside,
            "spread": spread([each[2] for each in rounds]),
            "repeats": len(rounds),
        }
    )


def overlap_factor(samples: Sequence[OverlapSample]) -> float | None:
    """How much longer computing takes while a collective runs; None without samples."""
    largest = max((sample.message_bytes for sample in samples), default=0)
    known = [s.slowdown for s in samples if s.message_bytes == largest]
    return 1 / (1 - min(MOST, statistics.median(known))) if known else None
