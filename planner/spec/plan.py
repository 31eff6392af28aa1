"""Plan: one chosen division with everything needed to simulate, run and judge it later."""

from typing import Self

import pydantic

from planner.spec.asked import Asked
from planner.spec.calibration import Calibration
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import Document, Frozen, InputError
from planner.spec.layout import Layout, Stage, title
from planner.spec.model import ModelSpec
from planner.spec.profile import Profile
from planner.spec.provenance import Shares
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload

AT_RISK = 0.88
"""Fitted: above this share of the device's memory, runs of hf_ultrascale.csv slow down or fail."""


class Prediction(Frozen):
    """What a plan promises.

    breakdown: seconds of the step on the critical rank, summing to step_seconds.
    memory: bytes of the fullest stage by purpose, summing to peak_bytes.
    stage_peak_bytes: upper bound per pipeline rank. mfu is None without a known peak FLOP/s.
    low_seconds, high_seconds: 10th and 90th percentile. at_risk: the peak is above AT_RISK of the
    device's memory. safe_peak_bytes: 99 of 100 such runs are expected to need less;
    run_out_probability: to need more than the device has (None in plans of older versions).
    calibration: the one it rests on, in words; empty without.
    """

    step_seconds: float = pydantic.Field(gt=0)
    tokens_per_second_per_device: float
    mfu: float | None
    peak_bytes: float
    capacity_bytes: float
    fits: bool
    stage_peak_bytes: tuple[float, ...]
    breakdown: dict[str, float]
    memory: dict[str, float]
    provenance: Shares
    usd_per_step: float | None = None
    low_seconds: float | None = None
    high_seconds: float | None = None
    at_risk: bool = False
    safe_peak_bytes: float | None = None
    run_out_probability: float | None = pydantic.Field(default=None, ge=0, le=1)
    calibration: str = ""


class Plan(Document):
    """A plan carries its model, cluster, workload, runtime and (if it rests on them) profile and
    calibration, so it can be simulated, run, exported and judged a year later without another file.
    asked: what it was searched for; None where somebody wrote the layout.

    The cluster and the runtime are the calibrated ones; nothing applies the calibration again.
    """

    SCHEMA = "plan/1"

    model: ModelSpec
    cluster: ClusterSpec
    workload: Workload
    runtime: Runtime
    layout: Layout
    stages: tuple[Stage, ...] = pydantic.Field(min_length=1)
    profile: Profile | None = None
    calibration: Calibration | None = None
    asked: Asked | None = None
    predicted: Prediction | None = None
    why: tuple[str, ...] = ()
    version: str = ""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.stages) != self.layout.pp * self.layout.vpp:
            raise ValueError(
                f"stages: {len(self.stages)} stages, the layout has pp*vpp="
                f"{self.layout.pp * self.layout.vpp}"
            )
        if self.layout.devices > self.cluster.devices:
            raise ValueError(
                f"layout: needs {self.layout.devices} devices, the cluster has "
                f"{self.cluster.devices}"
            )
        per_microbatch = self.layout.dp * self.layout.micro_batch
        if self.workload.global_batch % per_microbatch:
            raise ValueError(
                f"workload.global_batch: {self.workload.global_batch} is not a multiple of "
                f"dp*micro_batch={per_microbatch}; change one of the three"
            )
        expected = 0
        for index, stage in enumerate(self.stages):
            if stage.first_layer != expected:
                raise ValueError(
                    f"stages.{index}: first_layer is {stage.first_layer}, expected {expected}; "
                    f"stages hold consecutive layers"
                )
            expected += len(stage.layers)
        if expected != self.model.layers:
            raise ValueError(
                f"stages: hold {expected} layers, the model has {self.model.layers}; "
                f"the layers per stage must sum to that"
            )
        return self

    def check_rank(self, rank: int) -> None:
        """Raise InputError unless the plan has the rank."""
        if not 0 <= rank < self.layout.devices:
            raise InputError(f"rank {rank}: the plan has ranks 0 to {self.layout.devices - 1}")

    @property
    def microbatches(self) -> int:
        """Microbatches per step on one dp rank."""
        return self.layout.microbatches(self.workload.global_batch)

    @property
    def title(self) -> str:
        """The division in one line."""
        again = tuple(
            sum(choice.recompute == self.layout.recompute for choice in stage.layers)
            for stage in self.stages
        )
        return title(self.layout, self.layer_counts, again)

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """Layers of each stage."""
        return tuple(len(stage.layers) for stage in self.stages)
