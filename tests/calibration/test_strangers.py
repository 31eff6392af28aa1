"""What bands of strangers rest on: the fit finds the widths that made the ratios."""

import math

import numpy as np
import pytest

from planner.calibration.strangers import Stranger, by_difference, coverage, fit, left_out, weights
from planner.spec.strange import Difference

EIGHT_OF_TEN = 1.2816
"""The normal quantile of 90 %: eight of ten lie within on both sides."""


def drawn(count: int, true: dict[Difference, float]) -> list[Stranger]:
    """Runs whose errors are normal and add up as the law says, each a group of its own."""
    dice = np.random.default_rng(1)
    kinds: list[tuple[Difference, ...]] = [
        (),
        ("accelerator",),
        ("experts",),
        ("accelerator", "experts"),
        ("runtime",),
    ]
    rows = []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        reach = math.hypot(math.log(1.05), *(math.log(true[each]) for each in kind))
        ratio = math.exp(dice.normal(0, reach / EIGHT_OF_TEN))
        group = (f"source {index % 3}", f"model {index}", "device")
        rows.append(Stranger(group[0], group, ratio, 1 / 1.05, 1.05, kind))
    return rows


def test_the_fit_finds_what_made_the_ratios() -> None:
    true: dict[Difference, float] = {"accelerator": 1.2, "runtime": 1.1, "experts": 1.5}
    rows = drawn(3000, true)
    found = fit(rows)
    for name, factor in true.items():
        assert found[name] == pytest.approx(factor, rel=0.04)
    assert coverage(rows, found) == pytest.approx(0.8, abs=0.02)
    assert all(share == pytest.approx(0.8, abs=0.05) for share in left_out(rows).values())


def test_every_group_weighs_the_same() -> None:
    rows = [
        Stranger("s", ("s", model, "d"), 1.0, 0.9, 1.1, ())
        for model, count in (("one", 1), ("many", 9))
        for _ in range(count)
    ]
    found = weights(rows)
    assert found.sum() == pytest.approx(1.0)
    assert found[0] == pytest.approx(found[1:].sum())


def test_kinds_are_named_in_words() -> None:
    rows = drawn(5, {"accelerator": 1.2, "runtime": 1.1, "experts": 1.5})
    assert list(by_difference(rows)) == [
        "nothing",
        "accelerator",
        "accelerator and experts",
        "experts",
        "runtime",
    ]
