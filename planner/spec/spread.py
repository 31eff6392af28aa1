"""Spread: how measured numbers lie around predicted ones, as a distribution of their ratio.

Quantiles q_p of r = measured / predicted at the levels p of LEVELS; between two of them log r is
linear in the normal quantile z_p, beyond the last ones it goes on as between the last two:

    log r(z) = piecewise linear through (z_p, log q_p),      P(r > x) = 1 - Phi( z(x) )

so a log-normal one is exact, and every other one has log-normal tails.
"""

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

NORMAL = NormalDist()
LEVELS = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
"""Shares of ratios below each quantile."""

SAFE = 0.99
"""The level of the safe side: one of a hundred runs is expected above it."""

NARROWEST = 1e-6
"""Quantiles are kept that far apart (logarithm), so that shares have one answer."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of measured over predicted at LEVELS, rising."""

    quantiles: tuple[float, ...]

    def quantile(self, level: float) -> float:
        """The ratio that a share `level` of runs stays below, for level in (0, 1)."""
        places, logs = _places(), self._logs()
        z = NORMAL.inv_cdf(level)
        right = min(max(bisect.bisect_left(places, z), 1), len(places) - 1)
        return math.exp(_through(places, logs, right, z))

    def share_above(self, ratio: float) -> float:
        """The share of runs whose ratio is above."""
        if ratio <= 0:
            return 1.0
        places, logs = _places(), self._logs()
        at = math.log(ratio)
        right = min(max(bisect.bisect_left(logs, at), 1), len(logs) - 1)
        return 1.0 - NORMAL.cdf(_through(logs, places, right, at))

    def wider(self, factor: float) -> "Spread":
        """The same with 10th and 90th percentile moved out by a factor, the median left alone."""
        out = math.log(factor) / NORMAL.inv_cdf(0.9)
        pairs = zip(self.quantiles, _places(), strict=True)
        return Spread(tuple(q * math.exp(out * z) for q, z in pairs))

    def _logs(self) -> tuple[float, ...]:
        found: list[float] = []
        for each in self.quantiles:
            least = found[-1] + NARROWEST if found else -math.inf
            found.append(max(math.log(each), least))
        return tuple(found)

    @classmethod
    def between(cls, low: float, high: float) -> "Spread":
        """The log-normal one with that 10th and 90th percentile."""
        middle, reach = math.sqrt(low * high), math.log(high / low) / 2 / NORMAL.inv_cdf(0.9)
        return cls(tuple(middle * math.exp(reach * z) for z in _places()))


@functools.cache
def _places() -> tuple[float, ...]:
    return tuple(NORMAL.inv_cdf(level) for level in LEVELS)


def _through(xs: Sequence[float], ys: Sequence[float], right: int, x: float) -> float:
    """On the line through the points right - 1 and right."""
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
