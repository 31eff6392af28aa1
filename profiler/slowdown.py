"""Slowdown: how much longer the same work takes when k processes share this machine's cores.

k processes run the same stack of layers from the same moment until the same moment. With c(k)
the median CPU time of a lap while k run, and n cores shared fairly,

    slowdown(k) = c(k) / c(1) * max(1, k / n)

CPU time grows with k as caches and memory are shared; the second factor is the turns that
processes take beyond one per core. Wall time would say the same on a machine that does nothing
else, and nothing on one that does. Left out: the idle moments of a core between turns. Each k
is measured in two passes, the second in reverse, so that a drift of the machine favours no k.
"""

import statistics
from collections.abc import Iterable

from profiler.layers import Reference
from profiler.team import Team

LAYERS = 2
SECONDS = 0.4
MOST_RANKS = 8


def busy_counts(cores: int, max_ranks: int) -> tuple[int, ...]:
    """The k worth measuring: 1, powers of two up to cores, cores, and as many as will run.

    At least twice the cores and never more than 8; a profile's reader goes on in proportion.
    """
    busy = min(cores, MOST_RANKS)
    most = min(MOST_RANKS, max(max_ranks, 2 * busy))
    powers = {2**n for n in range(MOST_RANKS) if 2**n <= most}
    return tuple(sorted({1, busy, most} | powers))


def measure_slowdown(
    reference: Reference,
    team: Team,
    counts: Iterable[int],
    cores: int,
    seconds: float = SECONDS,
) -> tuple[tuple[int, float], ...]:
    """(k, factor) pairs, k ascending from (1, 1.0), factors never falling."""
    ascending = sorted({1, *counts})
    laps: dict[int, list[float]] = {count: [] for count in ascending}
    for count in (*ascending, *reversed(ascending)):
        laps[count] += _laps(reference, team, count, seconds)
    alone = statistics.median(laps[1])
    return monotone(
        {n: statistics.median(laps[n]) / alone * max(1.0, n / cores) for n in ascending}
    )


def monotone(factors: dict[int, float]) -> tuple[tuple[int, float], ...]:
    """The running maximum of factors by count, starting at (1, 1.0)."""
    pairs, most = [(1, 1.0)], 1.0
    for count in sorted(set(factors) - {1}):
        most = max(most, factors[count])
        pairs.append((count, most))
    return tuple(pairs)


def _laps(reference: Reference, team: Team, count: int, seconds: float) -> list[float]:
    results = team.run(
        "layers",
        count,
        reference=reference.model_dump(mode="json"),
        layers=LAYERS,
        seconds=seconds,
    )
    return [
        forward[1] + backward[1]
        for result in results
        for forward, backward in zip(result["forward"], result["backward"], strict=True)
    ]
