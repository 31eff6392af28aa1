"""Errors of predicted numbers against measured ones.

    error = predicted / measured - 1        negative: predicted too fast, or too small

median_ape, mean_ape, p90_ape: of |error|; bias: the median error. None without numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.validation.outcome import Outcome

BELOW = 0.05
"""A memory prediction this far below the measurement is unsafe."""

Pairs = Sequence[tuple[float, float]]


def error_metrics(pairs: Pairs) -> dict[str, Any]:
    """Metrics of (predicted, measured) pairs."""
    if not pairs:
        return dict.fromkeys(("median_ape", "mean_ape", "p90_ape", "bias"))
    errors = np.array([predicted / measured - 1.0 for predicted, measured in pairs])
    sizes = np.abs(errors)
    return {
        "median_ape": float(np.median(sizes)),
        "mean_ape": float(np.mean(sizes)),
        "p90_ape": float(np.percentile(sizes, 90)),
        "bias": float(np.median(errors)),
    }


def time_metrics(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Step time; coverage: the share of measured steps inside their predicted band."""
    timed = [(o.predicted, o.measured_seconds) for o in outcomes if o.measured_seconds]
    inside = [p.low_seconds <= seconds <= p.high_seconds for p, seconds in timed]
    return {
        **error_metrics([(p.step_seconds, seconds) for p, seconds in timed]),
        "coverage": sum(inside) / len(inside) if inside else None,
    }


def memory_metrics(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Peak memory; share_below, share_unsafe: rows whose prediction, whose safe side is more than
    BELOW under the measurement."""
    pairs = [(o.predicted.peak_bytes, o.measured_bytes) for o in outcomes if o.measured_bytes]
    below = [predicted < (1.0 - BELOW) * measured for predicted, measured in pairs]
    safe = [
        o.predicted.safe_peak_bytes < (1.0 - BELOW) * o.measured_bytes
        for o in outcomes
        if o.measured_bytes and o.predicted.safe_peak_bytes is not None
    ]
    return {
        **error_metrics(pairs),
        "share_below": sum(below) / len(below) if below else None,
        "share_unsafe": sum(safe) / len(safe) if safe else None,
    }
