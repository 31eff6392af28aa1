"""Divisions: how blocks are divided over ranks, one by one and many at once.

A search asks for the same divisions again and again, table by table; a Register keeps what each
costs, so that only new ones are costed.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.cost.collectives import Floats
from planner.cost.column import column
from planner.cost.distinct import distinct_rows
from planner.spec.layout import Layout
from planner.spec.runtime import CONTEXT_STYLES, ContextStyle

Ints = NDArray[np.int64]


SPLITS = ("tp", "cp", "ep", "etp")
"""Degrees that add operators or collectives to a graph where they are more than 1."""


class Division(NamedTuple):
    """How one block of a microbatch is divided: what its cost depends on besides the block.

    stride, cp_stride, ep_stride: distance in ranks between neighbours of a group; those that share
    an expert lie side by side, ep_stride / etp apart. groups: tp groups per stage.
    """

    tp: int
    micro_batch: int
    stride: int = 1
    groups: int = 1
    cp: int = 1
    ep: int = 1
    cp_stride: int = 1
    ep_stride: int = 1
    etp: int = 1
    cp_style: ContextStyle = "ring"

    @classmethod
    def of(cls, layout: Layout) -> "Division":
        """How a layout divides a block. Experts lie side by side over tp, cp and dp."""
        tp, cp, dp = (layout.stride(axis) for axis in ("tp", "cp", "dp"))
        groups, apart = layout.dp * layout.cp, min(tp, cp, dp) * layout.etp
        degrees = layout.tp, layout.micro_batch, tp, groups, layout.cp, layout.ep
        return cls(*degrees, cp, apart, layout.etp, layout.cp_style)


MIX = np.array(
    [0x9E3779B97F4A7C15 * (2 * place + 1) % 2**64 | 1 for place in range(len(Division._fields))],
    dtype=np.uint64,
)
"""Odd factors that spread rows over 64 bits; which ones does not matter."""


class Divisions:
    """Distinct divisions as rows of Division's fields, [D, fields]; cp_style: in CONTEXT_STYLES.

    hashes: one number for each, [D].
    """

    def __init__(self, rows: Ints):
        self.rows = np.ascontiguousarray(rows)
        self.key = self.rows.tobytes()

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """Numbers that tell rows apart, nearly always."""
        mixed = self.rows.astype(np.uint64) * MIX
        mixed ^= mixed >> np.uint64(29)
        total: NDArray[np.uint64] = (mixed * MIX[::-1]).sum(axis=1, dtype=np.uint64)
        return total

    def one(self, row: int) -> Division:
        """One of them."""
        *degrees, style = self.rows[row].tolist()
        return Division._make((*degrees, CONTEXT_STYLES[style]))

    def alike(self, *same: str) -> list[tuple[Ints, Division]]:
        """Divisions that a graph treats alike, as columns, and which rows they are: of one style,
        with each degree either 1 or more in all of them, and of one value of the fields `same`."""
        column_of = dict(zip(Division._fields, self.rows.T, strict=True))
        flags = [column_of[name] > 1 for name in SPLITS]
        fixed = ("cp_style", *same)
        keys = np.stack([*(column_of[name] for name in fixed), *flags], axis=1)
        distinct, index = distinct_rows(keys)
        found = []
        for place, values in enumerate(distinct.tolist()):
            rows = np.flatnonzero(index == place)
            whole = {name: column(values[rows]) for name, values in column_of.items()}
            several = values[len(fixed) :]
            whole |= {name: 1 for name, more in zip(SPLITS, several, strict=True) if not more}
            whole |= dict(zip(fixed, values, strict=False))
            whole["cp_style"] = CONTEXT_STYLES[whole["cp_style"]]
            found.append((rows, Division(**whole)))
        return found

    def take(self, rows: Ints) -> "Divisions":
        """Some of them."""
        return Divisions(self.rows[rows])


class Register:
    """Numbers of the divisions seen so far, by name; sorted by their hashes."""

    def __init__(self, names: Sequence[str]):
        self._hashes = np.zeros(0, dtype=np.uint64)
        self._rows = np.zeros((0, len(Division._fields)), dtype=np.int64)
        self._values: dict[str, Floats] = {name: np.zeros(0) for name in names}
        self._places: tuple[bytes, Ints] = (b"", np.zeros(0, dtype=np.int64))

    def missing(self, divisions: Divisions) -> Divisions | None:
        """Those not seen yet, None if all are."""
        if divisions.key == self._places[0]:
            return None
        places = self._find(divisions)
        if (places >= 0).all():
            self._places = divisions.key, places
            return None
        return divisions.take(np.flatnonzero(places < 0))

    def add(self, divisions: Divisions, values: Mapping[str, Floats]) -> None:
        """Keep the numbers of new divisions."""
        hashes = np.concatenate([self._hashes, divisions.hashes])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = np.concatenate([self._rows, divisions.rows])[order]
        for name, known in self._values.items():
            self._values[name] = np.concatenate([known, values[name]])[order]
        self._places = (b"", self._places[1])

    def values(self, divisions: Divisions, name: str) -> Floats:
        """A number of every division, [D]. All have been added."""
        if divisions.key != self._places[0]:
            self._places = divisions.key, self._find(divisions)
            assert (self._places[1] >= 0).all()
        return self._values[name][self._places[1]]

    def _find(self, divisions: Divisions) -> Ints:
        """The places of divisions, -1 where one is new. Of equal hashes the rows decide."""
        found = np.full(len(divisions.rows), -1, dtype=np.int64)
        if not len(self._hashes):
            return found
        first = np.searchsorted(self._hashes, divisions.hashes)
        for place in (first, first + 1):
            place = np.minimum(place, len(self._hashes) - 1)
            same = (self._rows[place] == divisions.rows).all(axis=1)
            found = np.where((found < 0) & same, place, found)
        return found
