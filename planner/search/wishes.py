"""Wishes: what a user fixes, forbids and allows in a search.

--fix tp=8            only plans with tp=8         --forbid zero=3      none with zero=3
--memory-limit 38GB   per device                   --memory-headroom 10%   stay that much below
--time-limit 10       CPU seconds, then the best so far with its gap
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import Candidates
from planner.schedule.orders import V_SHAPED
from planner.spec.asked import Asked, Objective
from planner.spec.documents import InputError
from planner.spec.runtime import (
    AXES,
    CONTEXT_STYLES,
    RECOMPUTES,
    SCHEDULES,
    SYNCHRONISATIONS,
    Axis,
    Runtime,
    check_axis_order,
)
from planner.spec.units import format_bytes, parse_bytes

Flags = NDArray[np.bool_]
NUMBERS = ("dp", "tp", "pp", "cp", "ep", "etp", "vpp", "micro_batch", "zero", "shard")
WORDS = ("schedule", "recompute", "cp_style", "sync", "axis_order")
CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": SCHEDULES,
    "recompute": RECOMPUTES,
    "cp_style": CONTEXT_STYLES,
    "sync": SYNCHRONISATIONS,
    "zero": ("0", "1", "2", "3"),
}
"""All that there is of a choice."""
LATER = ("recompute", "micro_batch", "schedule", "vpp", "axis_order")
"""Keys that are decided after mesh and states."""


@dataclass(frozen=True, slots=True)
class Wish:
    """key=value, wanted or not."""

    key: str
    value: str
    wanted: bool

    @property
    def option(self) -> str:
        """As it stands on the command line."""
        return f"{'--fix' if self.wanted else '--forbid'} {self.text}"

    @classmethod
    def parse(cls, text: str, wanted: bool) -> "Wish":
        """Read `tp=8`. Raises InputError."""
        option = "--fix" if wanted else "--forbid"
        key, sign, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or key not in (*NUMBERS, *WORDS):
            raise InputError(
                f"{option}: {text!r}; write key=value with a key of {', '.join((*NUMBERS, *WORDS))}"
            )
        value = value.strip()
        if key in NUMBERS and not value.isdecimal():
            raise InputError(f"{option}: {key}={value!r} is not a whole number; write {key}=8")
        if key == "axis_order":
            value = "-".join(_order(option, value))
        known = CHOICES.get(key)
        if known and value not in known:
            raise InputError(f"{option}: {key}={value!r} is unknown; choose {', '.join(known)}")
        if key in NUMBERS and key not in ("zero", "shard") and not int(value):
            raise InputError(f"{option}: {key}=0; a degree is at least 1")
        return cls(key, str(int(value)) if key in NUMBERS else value, wanted)

    @property
    def text(self) -> str:
        """key=value."""
        return f"{self.key}={self.value}"

    def check(self, runtime: Runtime) -> None:
        """Raise InputError where a runtime has no plan with the value that is wanted."""
        offered = _offered(self.key, runtime)
        if self.wanted and offered and self.value not in offered:
            raise InputError(
                f"--fix: {self.key}={self.value} is not offered by runtime {runtime.name!r}; "
                f"choose {', '.join(offered)}"
            )

    def holds(self, table: Candidates) -> Flags:
        """Which rows have the value, [N]."""
        if self.key in NUMBERS:
            values = np.broadcast_to(np.asarray(getattr(table, self.key)), (len(table),))
            return np.asarray(values == int(self.value))
        found: Callable[[], Flags] = {
            "schedule": lambda: np.full(len(table), table.schedule == self.value),
            "axis_order": lambda: np.full(len(table), "-".join(table.axis_order) == self.value),
            "cp_style": lambda: np.array([CONTEXT_STYLES[i] == self.value for i in table.style]),
            "sync": lambda: np.array([SYNCHRONISATIONS[i] == self.value for i in table.sync]),
        }[self.key]
        return found()


def _order(option: str, text: str) -> tuple[Axis, ...]:
    """The axes of `tp-cp-ep-dp-pp`."""
    named = tuple(axis for word in text.split("-") for axis in AXES if axis == word)
    try:
        if len(named) != len(text.split("-")):
            raise ValueError(f"must name each of {', '.join(AXES)} once, innermost first")
        return check_axis_order(named)
    except ValueError as error:
        raise InputError(f"{option}: axis_order={text!r} {error}; write tp-cp-ep-dp-pp") from None


def _offered(key: str, runtime: Runtime) -> list[str]:
    """What a runtime offers of a choice; empty where it does not matter."""
    orders = (runtime.axis_order, *runtime.other_axis_orders)
    found: dict[str, Iterable[object]] = {
        "schedule": runtime.schedules,
        "recompute": runtime.recompute,
        # one replica alone shards nothing
        "zero": sorted({0, *runtime.zero_stages, *runtime.offered_zero(2)}),
        "cp_style": runtime.context_styles,
        "sync": runtime.synchronisations,
        "axis_order": ["-".join(order) for order in orders],
        "vpp": range(1, max(2 * bool(V_SHAPED & {*runtime.schedules}), runtime.chunks) + 1),
    }
    if key in ("tp", "cp", "ep", "pp") and key not in runtime.axes:
        return ["1"]
    if (key == "etp" and not runtime.shares_experts) or (
        key == "shard" and not runtime.hybrid_sharding
    ):
        return ["1" if key == "etp" else "0"]
    return [str(value) for value in found.get(key, ())]


@dataclass(frozen=True, slots=True)
class Wishes:
    """All wishes of one search."""

    choices: tuple[Wish, ...] = ()
    memory_limit: str | None = None
    memory_headroom: str | None = None
    time_limit_seconds: float | None = None

    @classmethod
    def of(
        cls,
        fix: Iterable[str] = (),
        forbid: Iterable[str] = (),
        memory_limit: str | None = None,
        memory_headroom: str | None = None,
        time_limit_seconds: float | None = None,
    ) -> "Wishes":
        """Wishes in a user's words. Raises InputError."""
        wanted = [Wish.parse(text, True) for text in fix]
        unwanted = [Wish.parse(text, False) for text in forbid]
        return cls((*wanted, *unwanted), memory_limit, memory_headroom, time_limit_seconds)

    @classmethod
    def of_asked(cls, asked: Asked) -> "Wishes":
        """The wishes that a plan was searched with."""
        return cls.of(asked.fix, asked.forbid, asked.memory_limit, asked.memory_headroom)

    def asked(
        self, objective: Objective, limit_bytes: float, throughput: float | None = None
    ) -> Asked:
        """The question that a plan carries. limit_bytes: what its search let it use."""
        found = {wanted: self._texts(wanted) for wanted in (True, False)}
        return Asked(
            objective=objective,
            throughput=throughput,
            limit_bytes=limit_bytes,
            memory_limit=self.memory_limit,
            memory_headroom=self.memory_headroom,
            fix=found[True],
            forbid=found[False],
        )

    def _texts(self, wanted: bool) -> tuple[str, ...]:
        return tuple(wish.text for wish in self.choices if wish.wanted == wanted)

    def without(self, wish: Wish) -> "Wishes":
        """All but one."""
        return replace(self, choices=tuple(each for each in self.choices if each != wish))

    def seconds_left(self, begun: float) -> float | None:
        """CPU seconds of the time limit that a search begun then still has, if there is one."""
        limit = self.time_limit_seconds
        return None if limit is None else max(0.0, limit - (time.process_time() - begun))

    @property
    def chooses(self) -> bool:
        """Whether any outer choice is fixed or forbidden."""
        return any(wish.key != "recompute" for wish in self.choices)

    @property
    def sets_memory(self) -> bool:
        """Whether the user says how much memory there is."""
        return self.memory_limit is not None or self.memory_headroom is not None

    def check(self, runtime: Runtime) -> None:
        """Raise InputError where a runtime cannot keep a wish."""
        for wish in self.choices:
            wish.check(runtime)

    def keep(self, table: Candidates) -> Flags:
        """The rows that every wish leaves, [N]."""
        kept = np.ones(len(table), dtype=bool)
        for wish in self.choices:
            if wish.key != "recompute":
                kept &= wish.holds(table) == wish.wanted
        return kept

    def keep_states(self, table: Candidates) -> Flags:
        """The rows that wishes for the mesh and the states leave, [N]."""
        some = tuple(wish for wish in self.choices if wish.key not in LATER)
        return replace(self, choices=some).keep(table)

    def keep_later(self, table: Candidates) -> Flags:
        """The rows that wishes for anything else leave, [N]."""
        some = tuple(wish for wish in self.choices if wish.key in LATER)
        return replace(self, choices=some).keep(table)

    def allows(self, mode: str) -> bool:
        """Whether layers may recompute so."""
        wishes = [wish for wish in self.choices if wish.key == "recompute"]
        return all((wish.value == mode) == wish.wanted for wish in wishes)

    def memory_bytes(self, device_bytes: float) -> float:
        """What a plan may use of a device. Raises InputError."""
        limit = device_bytes
        if self.memory_limit is not None:
            limit = _bytes("--memory-limit", self.memory_limit)
            if limit <= 0:
                raise InputError(f"--memory-limit {self.memory_limit}: must be more than 0")
            if limit > device_bytes:
                raise InputError(
                    f"--memory-limit {self.memory_limit} is more than the device's "
                    f"{device_bytes / 1e9:.0f} GB; choose less, or edit the cluster"
                )
        if self.memory_headroom is not None:
            headroom = _headroom(self.memory_headroom, limit)
            if not 0 <= headroom < limit:
                raise InputError(
                    f"--memory-headroom {self.memory_headroom}: must be at least 0 and leave some "
                    f"of {format_bytes(limit)}"
                )
            limit -= headroom
        return limit


def _headroom(text: str, limit: float) -> float:
    if not text.strip().endswith("%"):
        return _bytes("--memory-headroom", text)
    number = text.strip()[:-1]
    try:
        return limit * float(number) / 100
    except ValueError:
        raise InputError(f"--memory-headroom: {text!r}; write 10% or 8GiB") from None


def _bytes(option: str, text: str) -> float:
    try:
        return float(parse_bytes(text))
    except ValueError as error:
        raise InputError(f"{option}: {error}; write 38GB or 64GiB") from None
