"""Grid: the process groups of a rank among ranks that are counted along several axes.

The first axis is innermost: rank = tp + |tp| * cp + |tp| * |cp| * ... . Dense parameters and
experts see the same ranks as two different grids (tp, cp, ... and etp, ep, ...).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from tests.ledger.programs.axes import Axes

GRIDS = (("tp", "cp"), ("etp", "ep"))


@contextmanager
def joined(degrees: Mapping[str, int], **choices: object) -> Iterator[Axes]:
    """This rank's groups, until the block ends; axes that are not named have one rank.

    Every rank of the job calls it: all groups are made by all, in the same order.
    """
    made: dict[str, Any] = {}
    for grid in GRIDS:
        made |= groups({axis: degrees.get(axis, 1) for axis in grid})
    try:
        yield Axes(**made, **choices)
    finally:
        for group in made.values():
            dist.destroy_process_group(group)


def groups(sizes: Mapping[str, int]) -> dict[str, Any]:
    """This rank's group of every axis of one grid that has more than one rank."""
    made, stride = {}, 1
    for axis, size in sizes.items():
        if size > 1:
            made[axis] = _group(stride, size)
        stride *= size
    return made


def _group(stride: int, size: int) -> Any:
    """This rank's of the groups of `size` ranks that are `stride` apart."""
    mine = None
    for first in range(dist.get_world_size()):
        if first // stride % size == 0:
            line = [first + i * stride for i in range(size)]
            group = dist.new_group(line)
            mine = group if dist.get_rank() in line else mine
    return mine


def ranks(degrees: Mapping[str, int]) -> int:
    """The fewest ranks that both grids fill."""
    return math.lcm(*(math.prod(degrees.get(axis, 1) for axis in grid) for grid in GRIDS))
