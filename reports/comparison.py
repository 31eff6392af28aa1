"""Comparison: a predicted and a measured timeline joined on (rank, action name).

    error = predicted / measured - 1        negative: the prediction was too fast or too small

None where nothing was measured to divide by. Totals and medians by kind are over the spans that
both timelines have; the others are counted on their side. A span that appears more than once
counts with the sum of its seconds. Note that measured receives, reductions and updates contain
the wait for slower ranks.
"""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

import pandas as pd

from planner.spec.documents import Document, Frozen
from planner.spec.timeline import Timeline
from reports.kinds import KINDS, kind_of


class KindError(Frozen):
    """Seconds of one kind of action over all ranks; medians are of one action."""

    kind: str
    actions: int
    predicted_total_seconds: float
    measured_total_seconds: float
    predicted_median_seconds: float
    measured_median_seconds: float
    error: float | None


class PeakError(Frozen):
    """Peak memory of one rank; kept says whether the measured peak is within the predicted."""

    rank: int
    predicted_bytes: float
    measured_bytes: float
    error: float | None
    kept: bool


class Comparison(Document):
    """What a prediction said and what a run showed.

    only_predicted, only_measured: how many (rank, name) pairs the other side lacks.
    """

    SCHEMA = "comparison/1"

    predicted_title: str
    measured_title: str
    predicted_step_seconds: float
    measured_step_seconds: float
    step_error: float
    kinds: tuple[KindError, ...]
    peaks: tuple[PeakError, ...]
    matched: int
    only_predicted: int
    only_measured: int

    def to_frame(self) -> pd.DataFrame:
        """One row per kind of action, the whole step last; seconds, the unit in the name."""
        rows = [kind.model_dump() for kind in self.kinds]
        return pd.DataFrame([*rows, self._step_row()], columns=list(KindError.model_fields))

    def _step_row(self) -> dict[str, object]:
        predicted, measured = self.predicted_step_seconds, self.measured_step_seconds
        values = ("step", 1, predicted, measured, predicted, measured, self.step_error)
        return dict(zip(KindError.model_fields, values, strict=True))


Key = tuple[int, str]


def compare(predicted: Timeline, measured: Timeline) -> Comparison:
    """Join two timelines of the same plan on (rank, action name)."""
    kind_by_name = {s.name: kind_of(s) for s in (*predicted.spans, *measured.spans)}
    left, right = _seconds(predicted), _seconds(measured)
    both = sorted(left.keys() & right.keys())
    keys = {kind: [key for key in both if kind_by_name[key[1]] == kind] for kind in KINDS}
    return Comparison(
        predicted_title=predicted.title,
        measured_title=measured.title,
        predicted_step_seconds=predicted.step_seconds,
        measured_step_seconds=measured.step_seconds,
        step_error=predicted.step_seconds / measured.step_seconds - 1.0,
        kinds=tuple(_kind(kind, keys[kind], left, right) for kind in KINDS if keys[kind]),
        peaks=peak_errors(predicted.peak_bytes, measured.peak_bytes),
        matched=len(both),
        only_predicted=len(left) - len(both),
        only_measured=len(right) - len(both),
    )


def relative_error(predicted: float, measured: float) -> float | None:
    """predicted / measured - 1, or None where nothing was measured."""
    return predicted / measured - 1.0 if measured > 0 else None


def peak_errors(
    predicted_bytes: dict[int, float], measured_bytes: dict[int, float]
) -> tuple[PeakError, ...]:
    """Peaks of the ranks that both sides know, by rank."""
    return tuple(
        PeakError(
            rank=rank,
            predicted_bytes=predicted_bytes[rank],
            measured_bytes=measured_bytes[rank],
            error=relative_error(predicted_bytes[rank], measured_bytes[rank]),
            kept=measured_bytes[rank] <= predicted_bytes[rank],
        )
        for rank in sorted(predicted_bytes.keys() & measured_bytes.keys())
    )


def _seconds(timeline: Timeline) -> dict[Key, float]:
    seconds: dict[Key, float] = defaultdict(float)
    for span in timeline.spans:
        seconds[span.rank, span.name] += span.seconds
    return dict(seconds)


def _kind(
    kind: str, keys: Iterable[Key], left: dict[Key, float], right: dict[Key, float]
) -> KindError:
    predicted, measured = [left[key] for key in keys], [right[key] for key in keys]
    return KindError(
        kind=kind,
        actions=len(predicted),
        predicted_total_seconds=sum(predicted),
        measured_total_seconds=sum(measured),
        predicted_median_seconds=median(predicted),
        measured_median_seconds=median(measured),
        error=relative_error(sum(predicted), sum(measured)),
    )
