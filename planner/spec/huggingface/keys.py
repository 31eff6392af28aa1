"""Keys: typed look-ups in one config.json that gather all problems before any is raised.

A look-up names the spellings of a key, first found first. Two words that JSON tells apart have
two meanings: `missing` is what an absent key stands for (the default of the transformers
class), `null` what an explicit null stands for. A look-up without `missing` refuses an absent
key, because nothing can be said without that size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from planner.spec.documents import InputError

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
WAY_OUT = (
    "write an architecture/1 document instead (planner/spec/model.py and layer.py list its keys)"
)
REQUIRED: Any = object()
MOST_LAYERS = 100_000


class Keys:
    """One mapping of a config.json. inside: where it lies in the file (`text_config.`)."""

    def __init__(self, data: Mapping[str, Any], where: str, inside: str = "") -> None:
        self.data, self.where, self.inside = data, where, inside
        self.problems: list[str] = []

    def refuse(self, key: str, message: str) -> None:
        """Note a problem with a key, once however often it is looked up."""
        problem = f"{self.where}: {self.inside}{key}: {message}"
        if problem not in self.problems:
            self.problems.append(problem)

    def contradict(self, key: str, message: str) -> None:
        """Note that keys do not fit together, unless one of them is wrong by itself."""
        if not self.problems:
            self.refuse(key, message)

    def raise_problems(self) -> None:
        """Raise InputError with every problem noted, if any."""
        if self.problems:
            raise InputError("\n".join(self.problems))

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.data.get(key) is not None

    def size(
        self, *spellings: str, missing: Any = REQUIRED, null: Any = REQUIRED, least: int = 1
    ) -> int:
        """A whole number from `least` on."""
        key = next((key for key in spellings if key in self.data), None)
        if key is None or self.data[key] is None:
            value = missing if key is None else null
            if value is REQUIRED:
                self.refuse(key or spellings[0], f"missing; add this key, or {WAY_OUT}")
            return least if value is REQUIRED else value
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(key, f"{value!r} is not a whole number from {least} on")
            return least
        return value

    def layers(self, *spellings: str, missing: Any = REQUIRED, null: Any = REQUIRED) -> int:
        """How many layers a stack has."""
        count = self.size(*spellings, missing=missing, null=null)
        if count > MOST_LAYERS:
            self.refuse(spellings[0], f"{count} layers; more than {MOST_LAYERS} are no model")
            return 1
        return count

    def number(self, key: str, missing: float) -> float:
        """A number above 0."""
        return self.above_zero(key, self.data.get(key, missing), missing)

    def above_zero(self, key: str, value: Any, instead: float) -> float:
        """The value if it is a number above 0; else a problem, and `instead`."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            self.refuse(key, f"{value!r} is not a number above 0")
            return instead
        return float(value)

    def cap(self, key: str, missing: float | None) -> float | None:
        """A number above 0 or null, for none."""
        value = self.data.get(key, missing)
        return None if value is None else self.above_zero(key, value, 1.0)

    def flag(self, key: str, missing: bool) -> bool:
        """true or false."""
        value = self.data.get(key, missing)
        if not isinstance(value, bool):
            self.refuse(key, f"{value!r} is neither true nor false")
            return missing
        return value

    def absent(self, key: str, why: str) -> None:
        """Refuse a switch that asks for something that ModelSpec cannot say."""
        value = self.data.get(key)
        if value is not None and value is not False:
            self.refuse(key, f"{value!r} is not supported: {why}; set it to false, or {WAY_OUT}")

    def activation(self, key: str, missing: str) -> str:
        """The activation by our name."""
        return self.known_activation(key, self.data.get(key, missing), missing)

    def known_activation(self, key: str, value: Any, instead: str) -> str:
        """Our name of their activation; a problem, if there is none."""
        if not isinstance(value, str) or value not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            self.refuse(key, f"{value!r} is not supported; supported are {known}; else {WAY_OUT}")
            return ACTIVATIONS[instead]
        return ACTIVATIONS[value]

    def part(self, key: str) -> Mapping[str, Any]:
        """A mapping inside the config, empty if absent or null."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, Mapping):
            self.refuse(key, f"{value!r} is not a mapping of keys to values")
            return {}
        return value or {}

    def listed(self, key: str) -> Sequence[Any]:
        """A list, empty if absent or null."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, list | tuple):
            self.refuse(key, f"{value!r} is not a list")
            return []
        return value or []

    def head_dim(self, hidden: int, heads: int, *, missing: int | None = None) -> int:
        """head_dim if given, else `missing`, else hidden / heads, which must divide."""
        if self.has("head_dim"):
            return self.size("head_dim")
        if missing is not None:
            return missing
        return self.share("head_dim", hidden, heads)

    def share(self, key: str, hidden: int, heads: int) -> int:
        """hidden / heads, which must divide."""
        if hidden % heads:
            self.contradict(key, f"missing, and hidden {hidden} is no multiple of heads {heads}")
        return max(1, hidden // heads)
