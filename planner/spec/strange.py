"""Strange: what the runs of a calibration were not, and how much wider that makes a band of time.

A calibration knows the device, the software and the kinds of layers of the runs that it was fitted
on; its band holds for more of the same. Each difference d of what is asked adds
an error of its own, independent of the others. With the middle c and the reach w of the band of
log(measured / predicted),

    c = (log low + log high) / 2,    w = (log high - log low) / 2
    low, high = exp( c -/+ sqrt( w**2 + sum_d log(WIDER[d])**2 ) )

so that two differences are more than each and less than both one after the other. It leaves out
that some differences make predictions too fast rather than too slow (new devices under old software
do, new software under old constants does the opposite).
"""

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, get_args

Difference = Literal["accelerator", "runtime", "experts"]
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)

WIDER: dict[Difference, float] = {"accelerator": 1.19, "runtime": 1.13, "experts": 1.30}
"""Fitted: least pinball loss of the 80th percentile of |log(measured / predicted)| on the 660 runs
of the catalog that nothing is fitted on, every (source, model, device) weighed alike (2026-11-30;
planner/calibration/strangers.py fits and judges, docs/validation.md prints both). A number format
that no run had was tried besides and adds nothing (1.00)."""


def widened(
    low: float,
    high: float,
    differences: Collection[Difference],
    wider: Mapping[Difference, float] = MappingProxyType(WIDER),
) -> tuple[float, float]:
    """The band of what differs so, around the same middle."""
    if not differences:
        return low, high
    middle, reach = math.log(low * high) / 2, math.log(high / low) / 2
    further = sum(math.log(wider[each]) ** 2 for each in set(differences))
    reach = math.sqrt(reach**2 + further)
    return math.exp(middle - reach), math.exp(middle + reach)
