"""Fits of collective times: seconds = alpha + S / B, S the bytes of the full message.

Of one case (operation, backend, ranks, groups, nodes, stride) with samples (S_i, t_i):

    1/B    minimises  sum over large i of  w_i * ((alpha + S_i / B) / t_i - 1)**2
    alpha  = median over small i of  t_i - S_i / B,  at least MOST_OPTIMISTIC of the least t_i

small: S <= 4 KiB, large: S >= 256 KiB; without such samples the smallest, the largest. Small
messages say nothing of the bandwidth and large ones nothing of the latency (shaped and
buffered links let small ones pass free), so a single least squares over all would be wrong in
both. The error is relative, since sizes span five decades. w_i are Huber's weights of the
relative residuals, which bound the pull of one bad sample. The two lines are iterated until
they hold together. Left out: protocol changes between the ends; median_error shows them.
"""

import itertools
import statistics
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from planner.spec.profile import CollectiveFit, CollectiveSample

Floats = NDArray[np.float64]

SMALL_BYTES = 4 << 10
LARGE_BYTES = 256 << 10
MOST_OPTIMISTIC = 1e-2
ROUNDS = 50
HUBER = 1.345


def fit_all(samples: Iterable[CollectiveSample]) -> tuple[CollectiveFit, ...]:
    """One fit per case that has samples of two sizes or more."""
    ordered = sorted(samples, key=_case)
    cases = (list(members) for _, members in itertools.groupby(ordered, _case))
    return tuple(fit(members) for members in cases if len({s.message_bytes for s in members}) > 1)


def fit(samples: Sequence[CollectiveSample]) -> CollectiveFit:
    """The fit of samples of one case with at least two sizes."""
    sizes = np.array([sample.message_bytes for sample in samples])
    seconds = np.array([sample.seconds for sample in samples])
    latency, per_byte = alpha_beta(sizes, seconds)
    errors = np.abs((latency + sizes * per_byte) / seconds - 1.0)
    one = samples[0]
    return CollectiveFit(
        op=one.op,
        backend=one.backend,
        ranks=one.ranks,
        groups=one.groups,
        nodes=one.nodes,
        stride=one.stride,
        latency_seconds=latency,
        bandwidth_bytes_per_second=1.0 / per_byte,
        median_error=float(statistics.median(errors.tolist())),
    )


def alpha_beta(sizes: Floats, seconds: Floats) -> tuple[float, float]:
    """(alpha seconds, 1/B seconds per byte), both positive; see the top of the file."""
    small = sizes <= max(SMALL_BYTES, sizes.min())
    large = sizes >= min(LARGE_BYTES, sizes.max())
    floor = MOST_OPTIMISTIC * float(seconds.min())
    alpha, per_byte = float(np.median(seconds[small])), 0.0
    for _ in range(ROUNDS):
        per_byte = _per_byte(sizes[large], seconds[large], alpha)
        found = max(float(np.median(seconds[small] - sizes[small] * per_byte)), floor)
        if abs(found - alpha) <= 1e-12 * found:
            break
        alpha = found
    return alpha, per_byte


def _per_byte(sizes: Floats, seconds: Floats, alpha: float) -> float:
    """The slope of the line through alpha that fits the large samples best, relatively."""
    x, y = sizes / seconds, 1.0 - alpha / seconds
    weights = np.ones_like(x)
    slope = 0.0
    for _ in range(ROUNDS):
        before, slope = slope, float(np.sum(weights * x * y) / np.sum(weights * x * x))
        if abs(slope - before) <= 1e-12 * abs(slope):
            break
        weights = _huber(y - slope * x)
    return slope if slope > 0 else float(np.min(seconds / sizes))


def _huber(residuals: Floats) -> Floats:
    scale = 1.4826 * float(np.median(np.abs(residuals))) + 1e-12
    weights: Floats = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residuals), 1e-300))
    return weights


def _case(sample: CollectiveSample) -> tuple[str, str, int, int, int, int]:
    group = (sample.op, sample.backend, sample.ranks, sample.groups)
    return (*group, sample.nodes or 0, sample.stride or 0)
