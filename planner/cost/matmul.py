"""Matrix products on a GPU: how much of the peak a shape can use.

An (m,k)x(k,n) product is cut into output tiles; the p multiprocessors work on p tiles at a time.

    waves(tile)   = ceil( ceil(m/tm) * ceil(n/tn) / p )
    filled(tile)  = m*n / (waves * p * tm*tn)              tile and wave quantisation
    depth         = k / (k + DEPTH)                        filling and draining of the pipeline
    share         = max over tiles of rate(tile) * filled(tile) * depth

rate(tile): smaller tiles reuse less of what they load. Sources: NVIDIA, Matrix Multiplication
Background User's Guide (tile and wave quantisation). Products of experts are `groups` small ones
of m/groups rows. Left out: layouts, the choice among equal kernels, clocks under load.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

TILES: tuple[tuple[int, int, float], ...] = (
    (256, 128, 1.0),
    (128, 256, 1.0),
    (128, 128, 0.95),
    (128, 64, 0.80),
    (64, 128, 0.80),
    (64, 64, 0.65),
)
"""(rows, columns, rate). Assumed: ratios that NVIDIA's guide shows for its tile sizes."""

DEPTH = 256
"""Fitted: by hand, elements of k that a kernel takes to fill its pipeline; 64 and 128 were tried on
vTrain, held out (docs/validation.md)."""


def share_of_peak(m: int, n: int, k: int, multiprocessors: int, depth: float = DEPTH) -> float:
    """The share of the best rate that one product reaches, in (0, 1]."""
    return filled_share(m, n, multiprocessors) * k / (k + depth)


@lru_cache(maxsize=200_000)
def filled_share(m: int, n: int, multiprocessors: int) -> float:
    """The share that the best tile leaves, however deep the product is."""
    return max(
        rate
        * m
        * n
        / (math.ceil(_tiles(m, n, tm, tn) / multiprocessors) * multiprocessors)
        / (tm * tn)
        for tm, tn, rate in TILES
    )


def shares_of_peak(m: Any, n: Any, k: Any, multiprocessors: int, depth: float = DEPTH) -> Any:
    """The same for arrays of products."""
    m, n, k = (np.asarray(each, dtype=np.float64) for each in (m, n, k))
    filled = np.zeros(np.broadcast_shapes(m.shape, n.shape))
    for tm, tn, rate in TILES:
        waves = np.ceil(np.ceil(m / tm) * np.ceil(n / tn) / multiprocessors)
        filled = np.maximum(filled, rate * m * n / (waves * multiprocessors) / (tm * tn))
    return filled * k / (k + depth)


def _tiles(m: int, n: int, tm: int, tn: int) -> int:
    return math.ceil(m / tm) * math.ceil(n / tn)
