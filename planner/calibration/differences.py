"""Differences: how far the constants of the catalog's calibrations lie from one another.

What another cluster's constant may be is known from how it varies among those that were fitted.
With x_c = log of the constant in calibration c of n, sigma_c its uncertainty there (its low and
high are BAND of it away), S the spread of its general prior (planner.calibration.fitting.PRIORS),
the spread between clusters is estimated by moments, the general prior standing in for one more
calibration (n - 1 degrees of freedom and one):

    s**2 = ( S**2 + sum_c max(0, (x_c - mean x)**2 - sigma_c**2) ) / n

A constant that no two calibrations have keeps S. It is a spread between kinds of clusters, devices
and runtimes alike; how much of it remains within one kind is for the runs to say
(planner.calibration.own_runs).
"""

from collections.abc import Collection, Sequence

import numpy as np

from planner.calibration.fitting import BAND, PRIORS
from planner.spec import catalog
from planner.spec.calibration import Calibration, ConstantName

Pair = tuple[str, str]
"""An accelerator and a runtime."""


def known_calibrations(without: Collection[Pair] = ()) -> list[Calibration]:
    """Those of the catalog, without some pairs'."""
    pairs = [name.partition("--")[::2] for name in catalog.list_calibrations()]
    return [
        found
        for device, software in pairs
        if (device, software) not in without
        and (found := catalog.find_calibration(catalog.find_accelerator(device), software))
    ]


def spreads_between(calibrations: Sequence[Calibration]) -> dict[ConstantName, float]:
    """Of every constant the spread of its log between clusters."""
    return {name: _spread(name, calibrations) for name in PRIORS}


def _spread(name: ConstantName, calibrations: Sequence[Calibration]) -> float:
    known = [each.constants[name] for each in calibrations if name in each.constants]
    general = PRIORS[name].spread
    if len(known) < 2:
        return general
    logs = np.log([each.value for each in known])
    sigmas = np.array([np.log(each.high / each.low) / (2 * BAND) for each in known])
    apart = np.maximum(0.0, (logs - logs.mean()) ** 2 - sigmas**2)
    return float(np.sqrt((general**2 + apart.sum()) / len(known)))
