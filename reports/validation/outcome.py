"""Outcome: one measured run beside its prediction and what the trivial baselines need.

    flops   = 3 forward (4 with full recomputation) of the whole model and batch
    bubble  = (m + (pp - 1) / vpp) / m      of m microbatches, 1 without a pipeline

None where the run was not measured.
"""

from dataclasses import dataclass
from pathlib import Path

from planner.calibration.predicted_runs import RunPrediction
from planner.graph import counts
from planner.spec.runs.case import Case
from planner.spec.runs.run import Run

Group = tuple[str, int]
Question = tuple[str, str, str, int, int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured and what was predicted. failed: it ran out of memory or crashed."""

    run: Run
    source: str
    model: str
    devices: int
    global_batch: int
    seq_len: int
    layout: str
    measured_seconds: float | None
    measured_bytes: float | None
    failed: bool
    predicted: RunPrediction
    flops: float
    bubble: float
    notes: tuple[str, ...] = ()

    @property
    def group(self) -> Group:
        """What is left out together when a baseline is fitted: model and devices."""
        return self.model, self.devices

    @property
    def question(self) -> Question:
        """Runs of one question differ in their layout only."""
        device = (self.run.gpu or "").lower()
        return self.source, self.model, device, self.devices, self.global_batch, self.seq_len

    @property
    def wide_question(self) -> Question:
        """The same whatever the sequence and the kind of device: (model, devices, batch)."""
        return self.source, self.model, "", self.devices, self.global_batch, 0

    @property
    def device_flops(self) -> float:
        """FLOPs of one device in the step."""
        return self.flops / self.devices


def outcome(case: Case, predicted: RunPrediction) -> Outcome:
    """A case and its prediction as one outcome."""
    layout, batch = case.layout, case.workload.global_batch
    microbatches = layout.microbatches(batch)
    forward = counts.forward_flops(case.model, 1, case.workload.seq_len) * batch
    return Outcome(
        run=case.run,
        source=case.run.source or Path(case.run.file).stem,
        model=case.run.model or case.model.name,
        devices=layout.devices,
        global_batch=batch,
        seq_len=case.workload.seq_len,
        layout=str(layout),
        measured_seconds=case.step_seconds,
        measured_bytes=case.peak_bytes,
        failed=case.failed,
        predicted=predicted,
        flops=forward * (4.0 if layout.recompute == "full" else 3.0),
        bubble=(microbatches + (layout.pp - 1) / layout.vpp) / microbatches,
        notes=(*case.notes, *predicted.notes),
    )
