"""Judged: a split of the study with its held-out outcomes and their figures."""

from dataclasses import dataclass
from typing import Any

from reports.validation.baselines import NAMES, baseline_seconds
from reports.validation.errors import error_metrics, time_metrics
from reports.validation.order import order_metrics
from reports.validation.outcome import Outcome
from reports.validation.splits import Split


@dataclass(frozen=True, slots=True)
class Judged:
    """A split with its held-out outcomes."""

    split: Split
    outcomes: tuple[Outcome, ...]
    groups: int
    seconds: float

    @property
    def row(self) -> dict[str, Any]:
        """Its figures."""
        ours = [o.predicted.step_seconds for o in self.outcomes]
        risky = [o.predicted.at_risk for o in self.outcomes]
        measured = [o.measured_seconds or 0.0 for o in self.outcomes]
        found = {**time_metrics(self.outcomes), **order_metrics(self.outcomes, ours, risky)}
        found["wide"] = order_metrics(self.outcomes, ours, risky, wide=True)
        for name in NAMES:
            guesses = baseline_seconds(self.outcomes, name)
            pairs = [(g, m) for g, m in zip(guesses, measured, strict=True) if g is not None]
            found[name] = {**error_metrics(pairs), **order_metrics(self.outcomes, guesses)}
        return found
