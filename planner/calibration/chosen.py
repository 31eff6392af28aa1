"""Chosen: the calibration that a question means, the nearest of the catalog or one that is told."""

from planner.spec import catalog, documents
from planner.spec.calibration import Calibration
from planner.spec.cluster import ClusterSpec
from planner.spec.runtime import Runtime


def chosen_calibration(
    asked: str | Calibration | None, cluster: ClusterSpec, runtime: Runtime
) -> Calibration | None:
    """The calibration that a question means, made for its device and runtime. Raises InputError.

    A device that is not the catalog's own is somebody's measurement, or calibrated already.
    """
    device = cluster.accelerator
    if asked is None:
        known = device.name in catalog.list_accelerators()
        own = known and catalog.find_accelerator(device.name) == device
        return catalog.find_calibration(device, runtime.name) if own else None
    if asked == "none":
        return None
    found = documents.load(Calibration, asked) if isinstance(asked, str) else asked
    if (found.accelerator, found.runtime) == (device.name, runtime.name):
        return found
    return found.borrowed_for(device.name, runtime.name)
