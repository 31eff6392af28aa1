"""Column: the same number of many divisions, which the graph's code takes for one integer.

The rules by which a layout shards a graph (planner.graph.view) are sums, products and floors of
integers, so they hold for an array of divisions as they do for one. What they are not is
branches; a comparison of a Column is one answer for all its rows, and MixedError where there is
none. Whoever builds Columns groups divisions so that the branches agree.

larger, smaller: of numbers or of columns of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class MixedError(Exception):
    """Rows of a column that would take different branches."""


class Column(NDArray[Any]):
    """Numbers of several divisions, [N]; compares as one, hashes as an object."""

    # a column compares and hashes as the one number it stands for, so not as arrays do
    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __bool__(self) -> bool:
        return _one(np.asarray(self) != 0)

    def __eq__(self, other: object) -> bool:
        return self is other or _one(np.asarray(self) == np.asarray(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    # numpy types comparisons of arrays as arrays; these answer with one bool
    def __lt__(self, other: Any) -> bool:  # type: ignore[override]
        return _one(np.asarray(self) < np.asarray(other))

    def __le__(self, other: Any) -> bool:  # type: ignore[override]
        return _one(np.asarray(self) <= np.asarray(other))

    def __gt__(self, other: Any) -> bool:  # type: ignore[override]
        return _one(np.asarray(self) > np.asarray(other))

    def __ge__(self, other: Any) -> bool:  # type: ignore[override]
        return _one(np.asarray(self) >= np.asarray(other))


def column(values: NDArray[Any]) -> Any:
    """Values as a Column; typed as the integer that it stands for."""
    return np.asarray(values).view(Column)


def _one(answers: NDArray[np.bool_]) -> bool:
    if answers.all():
        return True
    if answers.any():
        raise MixedError
    return False


def larger(one: Any, other: Any) -> Any:
    """The larger of two numbers, row by row where either is a column."""
    return np.maximum(one, other) if _columns(one, other) else max(one, other)


def smaller(one: Any, other: Any) -> Any:
    """The smaller of two numbers, row by row where either is a column."""
    return np.minimum(one, other) if _columns(one, other) else min(one, other)


def _columns(*values: Any) -> bool:
    return any(isinstance(value, np.ndarray) for value in values)
