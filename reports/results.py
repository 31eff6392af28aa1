"""PlanResult: one plan with what was predicted for it and, if it ran, what was measured.

    error = predicted / measured - 1
    loss parity = max over steps of |loss - reference loss| / |reference loss|

The reference is the same model trained on one rank: a division must not change the mathematics.
"""

from dataclasses import dataclass
from statistics import median

from planner.spec.measured import Measured
from planner.spec.plan import Plan
from planner.spec.profile import Machine
from planner.spec.timeline import Timeline
from reports.comparison import PeakError, peak_errors, relative_error


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan, its predicted timeline, its run (None: not run) and its loss parity (None: not
    checked), a relative difference.
    """

    plan: Plan
    predicted: Timeline
    measured: Measured | None = None
    loss_parity: float | None = None

    @property
    def name(self) -> str:
        """The layout, and the layers of each stage where they are uneven."""
        return self.plan.title

    @property
    def predicted_seconds(self) -> float:
        """Predicted seconds of a step."""
        return self.predicted.step_seconds

    @property
    def measured_seconds(self) -> float | None:
        """Median measured seconds of a step."""
        return None if self.measured is None else self.measured.step_seconds.median

    @property
    def error(self) -> float | None:
        """Relative error of the predicted step time."""
        measured = self.measured_seconds
        return None if measured is None else relative_error(self.predicted_seconds, measured)

    @property
    def predicted_peak_bytes(self) -> float | None:
        """Predicted peak of the fullest rank."""
        if self.plan.predicted is not None:
            return self.plan.predicted.peak_bytes
        return max(self.predicted.peak_bytes.values(), default=None)

    @property
    def measured_peak_bytes(self) -> float | None:
        """Measured peak of the fullest rank."""
        return (
            None if self.measured is None else max(self.measured.peak_bytes.values(), default=None)
        )

    @property
    def peaks(self) -> tuple[PeakError, ...]:
        """Predicted and measured peaks by rank."""
        return () if self.measured is None else peak_errors(self.promised, self.measured.peak_bytes)

    @property
    def promised(self) -> dict[int, float]:
        """Predicted peak bytes by rank: of the rank's stage, else of the timeline."""
        if self.plan.predicted is None:
            return self.predicted.peak_bytes
        stages = self.plan.predicted.stage_peak_bytes
        layout = self.plan.layout
        return {r: stages[layout.coordinates(r)["pp"]] for r in range(layout.devices)}

    @property
    def memory_kept(self) -> bool | None:
        """Whether no rank held more than predicted; None where nothing was measured."""
        return all(peak.kept for peak in self.peaks) if self.peaks else None


def loss_parity(run: Measured, reference: Measured) -> float | None:
    """Largest relative difference of two runs' losses; None without a step in common."""
    pairs = list(zip(run.loss, reference.loss, strict=False))
    return max((abs(a - b) / abs(b) for a, b in pairs if b), default=None)


def median_error(errors: list[float]) -> float | None:
    """Median of the errors' magnitudes; None without errors."""
    return median(abs(error) for error in errors) if errors else None


def machine_of(results: list[PlanResult]) -> Machine | None:
    """The machine that ran the plans, else the one they were profiled on."""
    ran = [result.measured.machine for result in results if result.measured is not None]
    profiled = [r.plan.profile.machine for r in results if r.plan.profile is not None]
    return next(iter(ran + profiled), None)
