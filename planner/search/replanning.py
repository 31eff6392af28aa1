"""Replanning: the best plan of the same question for the devices that are left."""

from planner.cost.blocks import Blocks
from planner.search import planning
from planner.search.ranking import NoPlanError
from planner.search.scaling import resized
from planner.spec.documents import InputError
from planner.spec.plan import Plan


def replan(plan: Plan, left: int) -> Plan:
    """The best plan for the largest number of devices, `left` or fewer, that has one.

    Model, workload (global batch included), runtime, profile and calibration stay the plan's.
    Fewer than `left` where those do not fill whole nodes or do not divide batch and model.
    Raises NoPlanError when no number has a plan.
    """
    reasons = []
    for devices in range(left, 0, -1):
        try:
            cluster = resized(plan.cluster, devices)
            asked = plan.model, cluster, plan.workload, plan.runtime, plan.profile
            _, found = planning.choose(Blocks(*asked, calibration=plan.calibration), top_k=1)
        except (InputError, NoPlanError) as error:
            reasons.append(f"{devices} devices: {error}")
            continue
        return found[0]
    none = f"no plan for {left} devices or fewer that are left of {plan.cluster.name}"
    raise NoPlanError("\n".join([none, *reasons]))
