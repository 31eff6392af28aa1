"""Straggler: what a step waits for the slowest of its replicas.

Equal replicas take T * (1 + s * z) for a pass, z standard normal, s the runtime's
`straggler_spread`. They meet once a step, when gradients are reduced, so the others wait for the
largest of d,

    wait = s * e(d) * T,      e(d) = E[max of d standard normals] ~ quantile((d - 3/8) / (d + 1/4))

(Blom 1958), d = min(dp, nodes): cards of one node share host, clocks and cooling and differ
little. e(1) = 0: one replica or one node waits for nobody. It grows as sqrt(2 log d), far slower
than the machine. SimuMax's published 0.09 * sqrt(k) * k / (k + 1) at k = log2 d is this law with
s = 0.081, within half a percent of the step, for 2 to 128 replicas. Left out: ranks of one replica
that wait for each other (that is in its measured layers), and nodes that are slow for good.
"""

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@lru_cache(maxsize=4096)
def slowest_of(replicas: int) -> float:
    """The expected largest of so many standard normals."""
    return NormalDist().inv_cdf((replicas - 0.375) / (replicas + 0.25)) if replicas > 1 else 0.0


def waits(spread: float, dp: Ints, devices: Ints, devices_per_node: int) -> Floats:
    """What a step waits, in passes of one replica, [N]."""
    if not spread:
        return np.zeros(len(dp))
    apart = np.minimum(dp, -(-devices // devices_per_node))
    distinct, index = np.unique(apart, return_inverse=True)
    return spread * np.array([slowest_of(int(each)) for each in distinct])[index]
