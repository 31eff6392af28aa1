"""Calibration: the few constants of an (accelerator, runtime) pair, fitted to measured runs.

A constant replaces or scales a number of the catalog (MEANINGS); it has one meaning and one unit
for every model, layout and number of devices. Nothing here knows a model, a row or a device count.

time_low, time_high: measured over predicted seconds, 10th and 90th percentile of held-out runs;
memory_low, memory_high: the same of the peak; memory_quantiles: more of them
(planner.spec.spread), for the safe side and the probability to run out. A calibration of another
accelerator or runtime may stand in (`borrowed_for`): what it says of the device is scaled by the
best published matrix products of both, on a newer one by what a published attention kernel reaches
on both, and for another software by what its own kernel reaches. Its band is wider for everything
that its runs were not (planner.spec.strange): another device, another software, experts.
"""

import math
from typing import Literal, Self

import pydantic

from planner.spec.cluster import ClusterSpec
from planner.spec.documents import Document, Frozen
from planner.spec.provenance import Provenance
from planner.spec.runtime import Runtime
from planner.spec.spread import LEVELS, Spread
from planner.spec.strange import Difference, widened

ConstantName = Literal[
    "matmul_efficiency",
    "attention_efficiency",
    "memory_efficiency",
    "matmul_depth",
    "launch_seconds",
    "fabric_efficiency",
    "fabric_latency_seconds",
    "network_efficiency",
    "network_latency_seconds",
    "layer_host_seconds",
    "step_seconds",
    "loss_passes",
    "overlap_slowdown",
    "stage_floor_seconds",
    "activation_scale",
    "gathered_share",
    "logit_bytes",
    "context_bytes",
]
MEANINGS: dict[ConstantName, tuple[str, str]] = {
    "matmul_efficiency": ("", "best rate of a 16-bit matrix product over the peak"),
    "attention_efficiency": ("", "rate of the attention core over the 16-bit peak"),
    "memory_efficiency": ("", "reached memory bandwidth over the data sheet's"),
    "matmul_depth": ("", "elements of k that fill the pipeline of a matrix product"),
    "launch_seconds": ("s", "what every operator takes besides its arithmetic and memory"),
    "fabric_efficiency": ("", "bandwidth inside a node over the catalog's"),
    "fabric_latency_seconds": ("s", "latency of one message inside a node"),
    "network_efficiency": ("", "bandwidth between nodes over the catalog's"),
    "network_latency_seconds": ("s", "latency of one message between nodes"),
    "layer_host_seconds": ("s", "host floor of one layer, forward and backward"),
    "step_seconds": ("s", "fixed time of a step"),
    "loss_passes": ("", "passes over fp32 logits in the loss, forward and backward"),
    "overlap_slowdown": ("", "seconds that compute loses per second of a hidden collective"),
    "stage_floor_seconds": ("s", "what a tp rank adds to a layer's host floor across nodes"),
    "activation_scale": ("", "activations kept over what the operators need"),
    "gathered_share": ("", "how much of what tensor parallelism gathers is kept"),
    "logit_bytes": ("B", "kept or used per logit while the loss runs"),
    "context_bytes": ("B", "device memory outside the tensors"),
}
"""Unit (none: a ratio) and meaning of every constant."""

OF_ACCELERATOR = (
    "matmul_efficiency",
    "attention_efficiency",
    "memory_efficiency",
    "matmul_depth",
    "launch_seconds",
)
OF_RUNTIME = (
    "layer_host_seconds",
    "step_seconds",
    "loss_passes",
    "overlap_slowdown",
    "stage_floor_seconds",
    "activation_scale",
    "gathered_share",
    "logit_bytes",
    "context_bytes",
)
LINKS: dict[ConstantName, str] = {
    "fabric_efficiency": "fabric.bandwidth_bytes_per_second",
    "fabric_latency_seconds": "fabric.latency_seconds",
    "network_efficiency": "network.bandwidth_bytes_per_second",
    "network_latency_seconds": "network.latency_seconds",
}
"""Under which key a cluster says where the number comes from."""

TRANSFER = 1.3
"""Fitted: the same device and software family on another cluster differ by 28 % (constants of
megatron_sc21_table1.csv on bigscience_bloom_prequel.csv); a borrowed band of peaks is wider by the
square root of it, assumed."""

WIDTH_OF_NOTHING = 1.25
"""Assumed: eight of ten lie within this factor, where no run was held out."""

UNCALIBRATED = (0.8, 1.6)
"""Fitted: without a calibration, eight of ten runs of the catalog take that much of the prediction
(planner.calibration.recipes); a device's data sheet is reached by nobody."""


def uncalibrated_band(experts: bool) -> tuple[float, float]:
    """The band of time without a calibration; its runs were of dense models."""
    return widened(*UNCALIBRATED, ["experts"] if experts else [])


UNWEIGHED = Spread.between(1 / WIDTH_OF_NOTHING, WIDTH_OF_NOTHING)
"""Assumed: of peaks, where there is no calibration."""


class Constant(Frozen):
    """A fitted number. low, high: where it may lie (80 %), from the curvature of the fit."""

    value: float = pydantic.Field(gt=0)
    low: float = pydantic.Field(gt=0)
    high: float = pydantic.Field(gt=0)

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low, value, high must not fall: {self.low, self.value, self.high}")
        return self

    def times(self, factor: float, at_most: float) -> "Constant":
        """Scaled, none of its numbers above a limit."""
        value, low, high = (min(n * factor, at_most) for n in (self.value, self.low, self.high))
        return Constant(value=value, low=low, high=high)


class Calibration(Document):
    """Constants of one accelerator under one runtime, what they were fitted on, and their error.

    sources, where: of which rows; runs, memory_runs: how many have a time, a peak; date: of the
    fit. groups: what was held out together, and the errors of those held-out predictions
    (median_error, coverage of the band by the others' band; memory_* of the peaks).
    borrowed_from: the pair it was fitted for, where it stands in for another one. mixtures: whether
    runs of models with experts were among them.
    """

    SCHEMA = "calibration/1"

    accelerator: str
    runtime: str
    constants: dict[ConstantName, Constant]
    time_low: float = pydantic.Field(default=1 / WIDTH_OF_NOTHING, gt=0)
    time_high: float = pydantic.Field(default=WIDTH_OF_NOTHING, gt=0)
    memory_low: float = pydantic.Field(default=1 / WIDTH_OF_NOTHING, gt=0)
    memory_high: float = pydantic.Field(default=WIDTH_OF_NOTHING, gt=0)
    memory_quantiles: tuple[float, ...] = ()
    runs: int = pydantic.Field(ge=0)
    memory_runs: int = pydantic.Field(default=0, ge=0)
    sources: tuple[str, ...]
    where: str = ""
    date: str
    groups: str = ""
    median_error: float | None = pydantic.Field(default=None, ge=0)
    coverage: float | None = pydantic.Field(default=None, ge=0, le=1)
    memory_median_error: float | None = pydantic.Field(default=None, ge=0)
    memory_coverage: float | None = pydantic.Field(default=None, ge=0, le=1)
    borrowed_from: str = ""
    mixtures: bool = False

    @pydantic.field_validator("memory_quantiles")
    @classmethod
    def _one_per_level(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) != len(LEVELS) or min(value) <= 0 or list(value) != sorted(value)):
            raise ValueError(f"must be {len(LEVELS)} positive ratios that do not fall, or none")
        return value

    @property
    def name(self) -> str:
        """The pair it serves."""
        return f"{self.accelerator}--{self.runtime}"

    @property
    def borrowed(self) -> bool:
        """Whether it was fitted for another pair."""
        return bool(self.borrowed_from)

    @property
    def provenance(self) -> Provenance:
        """Where its numbers come from; a borrowed number is an assumption."""
        if self.borrowed:
            source = f"calibration of {self.borrowed_from}, the nearest to {self.name}"
            return Provenance(birth="assumed", source=source, date=self.date)
        source = f"calibration {self.name}: {self.runs} runs of {', '.join(self.sources)}"
        return Provenance(birth="fitted", source=source, date=self.date)

    @property
    def title(self) -> str:
        """The pair it serves, and the one that it was fitted for if that is another."""
        return f"{self.borrowed_from} for {self.name}" if self.borrowed else self.name

    @property
    def memory_spread(self) -> Spread:
        """How measured peaks lie around predicted ones; log-normal where only the band is known."""
        if self.memory_quantiles:
            return Spread(self.memory_quantiles)
        return Spread.between(self.memory_low, self.memory_high)

    def time_band(self, experts: bool) -> tuple[float, float]:
        """The band of a model with experts, or of one without."""
        return widened(self.time_low, self.time_high, self.strange(experts))

    def strange(self, experts: bool) -> list[Difference]:
        """What of a model its runs were not."""
        return ["experts"] if experts and not self.mixtures else []

    def values(self) -> dict[str, float]:
        """The numbers alone."""
        return {str(name): constant.value for name, constant in self.constants.items()}

    def borrowed_for(
        self, accelerator: str, runtime: str, matmul: float = 1.0, attention: float = 1.0
    ) -> Self:
        """The same constants standing in for another pair, with a wider band.

        matmul, attention: ratios of the two devices' best published matrix products, and attention
        kernels, over their peaks.
        """
        constants = dict(self.constants)
        ratios: dict[ConstantName, float] = {
            "matmul_efficiency": matmul,
            "attention_efficiency": attention,
        }
        for name, ratio in ratios.items():
            if found := constants.get(name):
                constants[name] = found.times(ratio, at_most=1.0)
        strange: list[Difference] = ["accelerator"] if accelerator != self.accelerator else []
        strange += ["runtime"] if runtime != self.runtime else []
        low, high = widened(self.time_low, self.time_high, strange)
        return self.replace(
            accelerator=accelerator,
            runtime=runtime,
            constants=constants,
            borrowed_from=self.name,
            time_low=low,
            time_high=high,
            memory_low=self.memory_low / math.sqrt(TRANSFER),
            memory_high=self.memory_high * math.sqrt(TRANSFER),
            memory_quantiles=self.memory_spread.wider(math.sqrt(TRANSFER)).quantiles,
        )


def calibrate(
    calibration: Calibration, cluster: ClusterSpec, runtime: Runtime
) -> tuple[ClusterSpec, Runtime]:
    """The cluster and the runtime with its constants, and where each number now comes from."""
    values, born = calibration.values(), calibration.provenance
    cluster, runtime = calibrated(values, cluster, runtime)
    device = {name: born for name in OF_ACCELERATOR if name in values}
    accelerator = cluster.accelerator
    accelerator = accelerator.replace(provenance={**accelerator.provenance, **device})
    links = {key: born for name, key in LINKS.items() if name in values}
    software = {name: born for name in OF_RUNTIME if name in values}
    return (
        cluster.replace(accelerator=accelerator, provenance={**cluster.provenance, **links}),
        runtime.replace(provenance={**runtime.provenance, **software}),
    )


def calibrated(
    values: dict[str, float], cluster: ClusterSpec, runtime: Runtime
) -> tuple[ClusterSpec, Runtime]:
    """The cluster and the runtime with the constants in place of the catalog's numbers."""
    device = {name: values[name] for name in OF_ACCELERATOR if name in values}
    tiers = []
    for index, tier in enumerate(cluster.tiers):
        link = "network" if index else "fabric"
        share = values.get(f"{link}_efficiency", 1.0)
        latency = values.get(f"{link}_latency_seconds", tier.latency_seconds)
        tiers.append(
            tier.model_copy(
                update={
                    "bandwidth_bytes_per_second": tier.bandwidth_bytes_per_second * share,
                    "latency_seconds": latency,
                }
            )
        )
    accelerator = cluster.accelerator.model_copy(update=device)
    changed = {name: values[name] for name in OF_RUNTIME if name in values}
    return (
        cluster.model_copy(update={"accelerator": accelerator, "tiers": tuple(tiers)}),
        runtime.model_copy(update=changed),
    )
