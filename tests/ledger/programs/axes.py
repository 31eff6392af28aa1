"""Axes: the process groups of one rank. A group of one rank is None and sends nothing."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

Group = Any


@dataclass(frozen=True)
class Axes:
    """tp, cp, ep, etp: groups of this rank.

    sequence_parallel: between blocks a rank holds 1/tp of the rows. cp_style: how attention
    reads the other ranks' keys and values (ring, all_to_all, all_gather).
    """

    tp: Group = None
    cp: Group = None
    ep: Group = None
    etp: Group = None
    sequence_parallel: bool = True
    cp_style: str = "ring"

    @property
    def named(self) -> dict[str, Group]:
        """The groups by the name of their axis."""
        return {"tp": self.tp, "cp": self.cp, "ep": self.ep, "etp": self.etp}


def size(group: Group) -> int:
    return 1 if group is None else group.size()


def index(group: Group) -> int:
    return 0 if group is None else group.rank()


def part(whole: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's share of a tensor that is divided evenly along one dim."""
    return whole.chunk(size(group), dim)[index(group)]
