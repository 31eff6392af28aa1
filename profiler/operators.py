"""Operator times: operators in several processes at once, as in training.

Operators are timed in batches: the operators of a batch take turns, each on one of several sets
of buffers, first all forwards and then all backwards in reverse. So an operator finds caches,
and the processor's code caches too, as its neighbours in a layer leave them; the same operator
over and over would run from hot caches and look faster than it is.

A backward apart is a call of autograd's engine of its own, which in training one call for the
whole graph does: from each backward the median backward of an empty operator is taken off.

The sample is the median over the laps of all processes, forward and backward apart; on a CPU
of their CPU time (see profiler.stopwatch.compute_timing), since no two of them share a core.
"""

from collections.abc import Iterator, Sequence
from typing import get_args

from planner.spec.profile import OperatorSample, Phase
from profiler.kinds import FORWARD_ONLY, OperatorRequest, footprint_bytes
from profiler.stopwatch import Lap, Timing, compute_timing
from profiler.team import Team

PHASES: tuple[Phase, ...] = get_args(Phase)
SECONDS = 0.12
LEAST_SHARE = 0.2
"""Of an operator's time, what stays when the engine's is taken off."""
NEVER = Timing(0.0, 0.0, 0, 0.0)
"""The timing of a phase that an operator has not."""
BATCH = 12
BATCH_BYTES = 512 << 20


def phases(kind: str) -> tuple[Phase, ...]:
    """The phases an operator of this kind has."""
    return ("forward",) if kind in FORWARD_ONLY else PHASES


def measure_operators(
    requests: Sequence[OperatorRequest], team: Team, busy: int, seconds: float = SECONDS
) -> Iterator[list[OperatorSample]]:
    """Samples of the requests, batch after batch, measured in `busy` processes at once.

    seconds: how long to time one operator, forward and backward together, after the warm-up.
    Raises InputError for what cannot be timed, RunError when a worker fails.
    """
    for batch in batches(requests):
        yield measure_batch(batch, team, busy, seconds)


def batches(requests: Sequence[OperatorRequest]) -> list[list[OperatorRequest]]:
    """Requests in order, in batches of one dtype that neither are long nor hold much memory."""
    found: list[list[OperatorRequest]] = []
    held = 0.0
    for request in requests:
        size = footprint_bytes(request)
        same = bool(found) and found[-1][-1].dtype == request.dtype
        if not same or len(found[-1]) == BATCH or held + size > BATCH_BYTES:
            found.append([])
            held = 0.0
        found[-1].append(request)
        held += size
    return found


def measure_batch(
    requests: Sequence[OperatorRequest], team: Team, busy: int, seconds: float = SECONDS
) -> list[OperatorSample]:
    """The samples of one batch, one per operator and phase."""
    results = team.run(
        "operators",
        busy,
        requests=[(request.kind, request.dims, request.dtype) for request in requests],
        seconds=seconds * len(requests),
    )
    empty, *timings = (
        {phase: _timing([r[index][phase] for r in results], team.device) for phase in PHASES}
        for index in range(len(requests) + 1)
    )
    engine = {"forward": 0.0, "backward": empty["backward"].seconds}
    return [
        _sample(request, phase, timing[phase], engine[phase])
        for request, timing in zip(requests, timings, strict=True)
        for phase in phases(request.kind)
    ]


def _timing(results: list[list[list[float]]], device: str) -> Timing:
    laps = [Lap(*lap) for laps in results for lap in laps]
    return compute_timing(laps, device) if laps else NEVER


def _sample(
    request: OperatorRequest, phase: Phase, timing: Timing, engine_seconds: float
) -> OperatorSample:
    return OperatorSample(
        kind=request.kind,
        dims=request.dims,
        dtype=request.dtype,
        phase=phase,
        seconds=max(timing.seconds - engine_seconds, LEAST_SHARE * timing.seconds),
        spread=timing.spread,
        repeats=timing.repeats,
    )
