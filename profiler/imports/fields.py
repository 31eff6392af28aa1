"""Fields: the values of a JSON object of another tool, each refused by its file and key."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.spec.documents import InputError

LARGEST = 1e30
"""No quantity of these files is larger; products of two of them stay finite."""


class Fields:
    """A JSON object at a place in a file. key: where it stands (`accelerator.op`)."""

    def __init__(self, path: Path, data: Mapping[str, Any], key: str = ""):
        self.path, self.data, self.key = path, data, key

    def __contains__(self, name: str) -> bool:
        return name in self.data

    def part(self, name: str) -> "Fields":
        """An object inside this one. Raises InputError."""
        value = self._needed(name)
        if not isinstance(value, Mapping):
            raise self.refuse(name, f"{value!r} is no object {{...}}")
        return Fields(self.path, value, self.place(name))

    def parts(self, name: str) -> list["Fields"]:
        """A list of objects. Raises InputError."""
        value = self._needed(name)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.refuse(name, "is no list of objects [{...}, ...]")
        return [Fields(self.path, v, f"{self.place(name)}[{i}]") for i, v in enumerate(value)]

    def number(self, name: str, *, least: float | None = None, most: float = math.inf) -> float:
        """A number; above zero, or at least `least` if that is given. Raises InputError."""
        return self.checked(name, self._needed(name), least, most)

    def optional(self, name: str, *, least: float | None = None) -> float | None:
        """A number, or None where the key is missing or null. Raises InputError."""
        return None if self.data.get(name) is None else self.number(name, least=least)

    def whole(self, name: str, *, least: int = 1, most: float = math.inf) -> int:
        """A whole number of at least `least`. Raises InputError."""
        value = self.number(name, least=least, most=most)
        if value != int(value):
            raise self.refuse(name, f"{value!r} is no whole number")
        return int(value)

    def text(self, name: str, missing: str) -> str:
        """A string, or `missing` where the key is not there. Raises InputError."""
        value = self.data.get(name, missing)
        if not isinstance(value, str):
            raise self.refuse(name, f"{value!r} is no text")
        return value

    def flag(self, name: str, missing: bool) -> bool:
        """True or false, or `missing` where the key is not there. Raises InputError."""
        value = self.data.get(name, missing)
        if not isinstance(value, bool):
            raise self.refuse(name, f"{value!r} is neither true nor false")
        return value

    def checked(self, name: str, value: Any, least: float | None, most: float = math.inf) -> float:
        """A value that was found under `name`, as a number within bounds. Raises InputError."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= LARGEST:
            raise self.refuse(name, f"{value!r} is no finite number")
        if (value <= 0 if least is None else value < least) or value > most:
            low = "above 0" if least is None else f"at least {least:g}"
            high = "" if most == math.inf else f" and at most {most:g}"
            raise self.refuse(name, f"{value!r} must be {low}{high}")
        return float(value)

    def place(self, name: str) -> str:
        """The key of a value inside this object, from the top of the file."""
        return f"{self.key}.{name}" if self.key else name

    def refuse(self, name: str, problem: str) -> InputError:
        """The error for one key."""
        return InputError(f"{self.path}: {self.place(name)}: {problem}; correct the file")

    def _needed(self, name: str) -> Any:
        if name not in self.data:
            known = ", ".join(list(self.data)[:12]) or "nothing"
            raise self.refuse(name, f"missing (there is {known})")
        return self.data[name]
