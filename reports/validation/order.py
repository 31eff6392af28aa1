"""Order: does the prediction rank the layouts of one question as the measurement does?

A question is a source, model, number of devices, batch and sequence; its runs differ in layout.
pairwise: over all pairs of one question whose measured times differ by more than NOISE, the share
that the prediction orders alike (a tie counts half). regret of a question:

    measured time of the predicted best / measured best - 1        (mean over predicted ties)

The predicted best is taken among the layouts that are not at risk of running out of memory, as
the planner does, or among all if all are; the measured best is that of all.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.validation.outcome import Outcome, Question

NOISE = 0.02
"""Measured times closer than this are not ordered."""

TIE = 1e-9
"""Predicted times this close (relative) are equal."""

Floats = NDArray[np.float64]


def order_metrics(
    outcomes: Sequence[Outcome],
    predicted: Sequence[float | None],
    at_risk: Sequence[bool] | None = None,
    wide: bool = False,
) -> dict[str, Any]:
    """groups: questions with two timed layouts or more. at_risk: whom the planner would avoid.

    wide: a question is (model, devices, batch) only (Outcome.wide_question).
    """
    risky = at_risk or [False] * len(outcomes)
    asked = [each.wide_question if wide else each.question for each in outcomes]
    questions = _questions(outcomes, asked, predicted, risky)
    right = pairs = 0.0
    regrets = []
    for guess, measured, risk in questions:
        good, counted = _pairs(guess, measured)
        right, pairs = right + good, pairs + counted
        regrets.append(regret(guess, measured, risk > 0))
    return {
        "groups": len(questions),
        "pairwise": right / pairs if pairs else None,
        "mean_regret": float(np.mean(regrets)) if regrets else None,
        "max_regret": float(np.max(regrets)) if regrets else None,
    }


def _questions(
    outcomes: Sequence[Outcome],
    asked: Sequence[Question],
    predicted: Sequence[float | None],
    at_risk: Sequence[bool],
) -> list[tuple[Floats, Floats, Floats]]:
    """(predicted, measured, risk) of every question with two timed runs or more."""
    found: dict[Question, list[tuple[float, float, float]]] = defaultdict(list)
    for outcome, question, seconds, risk in zip(outcomes, asked, predicted, at_risk, strict=True):
        if seconds is not None and outcome.measured_seconds:
            found[question].append((seconds, outcome.measured_seconds, float(risk)))
    columns = (np.array(rows).T for rows in found.values() if len(rows) > 1)
    return [(guess, measured, risk) for guess, measured, risk in columns]


def _pairs(guess: Floats, measured: Floats) -> tuple[float, int]:
    """How many pairs are ordered alike, of how many that differ by more than the noise."""
    first, second = np.triu_indices(len(guess), k=1)
    slower = np.maximum(measured[first], measured[second])
    faster = np.minimum(measured[first], measured[second])
    counted = slower / faster > 1.0 + NOISE
    sign = np.sign(measured[first] - measured[second])
    alike = np.where(_ties(guess[first], guess[second]), 0.5, _sign(guess, first, second) == sign)
    return float(alike[counted].sum()), int(counted.sum())


def _sign(values: Floats, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    result: Floats = np.sign(values[first] - values[second])
    return result


def _ties(one: Floats, other: Floats | float) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.abs(one - other) <= TIE * np.maximum(np.abs(one), np.abs(other))
    return result


def regret(guess: Floats, measured: Floats, risky: NDArray[np.bool_]) -> float:
    """What is lost by taking the predicted best of those that are not at risk."""
    offered = np.ones_like(risky) if risky.all() else ~risky
    chosen = measured[offered & _ties(guess, float(guess[offered].min()))]
    return float(chosen.mean() / measured.min() - 1.0)
