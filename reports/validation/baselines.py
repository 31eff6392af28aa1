"""Two trivial baselines, fitted without the group they are asked about.

    constant      seconds = flops / (devices * c)
    flops_bubble  seconds = flops / (devices * c) * bubble

c, FLOP/s of one device, is the median over the other groups of the same source (a group is a
model on a number of devices), which minimises the median error of log seconds. A source with one
group has no baseline.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from reports.validation.outcome import Group, Outcome

NAMES = ("constant", "flops_bubble")
Speeds = dict[tuple[str, Group], float | None]


def work(outcome: Outcome, name: str) -> float:
    """FLOPs of one device, stretched by the bubble for the baseline that knows it."""
    return outcome.device_flops * (outcome.bubble if name == "flops_bubble" else 1.0)


def baseline_seconds(outcomes: Sequence[Outcome], name: str) -> list[float | None]:
    """The baseline's step time of every outcome, None where nothing else can be fitted."""
    speeds = _speeds(outcomes, name)
    found = [speeds.get((each.source, each.group)) for each in outcomes]
    return [
        None if speed is None else work(each, name) / speed
        for each, speed in zip(outcomes, found, strict=True)
    ]


def _speeds(outcomes: Sequence[Outcome], name: str) -> Speeds:
    """FLOP/s by source and left-out group."""
    by_source: dict[str, dict[Group, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in outcomes:
        speeds = by_source[each.source][each.group]
        if each.measured_seconds:
            speeds.append(work(each, name) / each.measured_seconds)
    return {
        (source, group): _without(groups, group)
        for source, groups in by_source.items()
        for group in groups
    }


def _without(groups: Mapping[Group, list[float]], left_out: Group) -> float | None:
    others = [speed for group, speeds in groups.items() if group != left_out for speed in speeds]
    return statistics.median(others) if others else None
