"""Elsewhere: measured runs that no calibration is fitted on, predicted as a user would do it.

Newer releases, other devices, another software: what `meshwright validate` says of them, with the
nearest calibration of the catalog and its band, by parts of a file. The baselines are fitted on
the rows of the part, a group of (model, devices) left out; the predictions on none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from planner.spec import catalog
from planner.spec.runs.run import read_runs
from reports.validation.baselines import NAMES, baseline_seconds
from reports.validation.outcome import Outcome
from reports.validation.validation import Validation, validate

Chosen = Callable[[Outcome], bool]

MIXTURES = ("deepseek", "qwen3", "gpt-oss")
"""Models of Megatron-Bridge that have experts."""

RACKS = ("gb200", "gb300")
"""Devices whose nodes are racks of one NVLink domain."""


def _is_mixture(outcome: Outcome) -> bool:
    return outcome.model.startswith(MIXTURES)


def _in_racks(outcome: Outcome) -> bool:
    return (outcome.run.gpu or "").lower().startswith(RACKS)


PARTS: tuple[tuple[str, str, Chosen], ...] = (
    ("LLM-foundry on H100, bf16", "llm_foundry_h100", lambda o: o.run.dtype == "bf16"),
    ("LLM-foundry on H100, fp8", "llm_foundry_h100", lambda o: o.run.dtype == "fp8"),
    ("torchtitan on A100", "torchtitan", lambda o: "A100" in (o.run.gpu or "")),
    (
        "torchtitan on H100 of 96 GB and H200",
        "torchtitan",
        lambda o: "A100" not in (o.run.gpu or ""),
    ),
    (
        "Megatron-Bridge, dense, nodes of 8 (H100, B200)",
        "megatron_bridge",
        lambda o: not _is_mixture(o) and not _in_racks(o),
    ),
    (
        "Megatron-Bridge, dense, racks of 72 (GB200, GB300)",
        "megatron_bridge",
        lambda o: not _is_mixture(o) and _in_racks(o),
    ),
    (
        "Megatron-Bridge, mixtures, nodes of 8 (H100, B200, B300)",
        "megatron_bridge",
        lambda o: _is_mixture(o) and not _in_racks(o),
    ),
    (
        "Megatron-Bridge, mixtures, racks of 72 (GB200, GB300)",
        "megatron_bridge",
        lambda o: _is_mixture(o) and _in_racks(o),
    ),
)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One part of a file. found: what `validate` finds of it."""

    title: str
    found: Validation


def elsewhere() -> list[Elsewhere]:
    """Every part, in the order of the table."""
    whole = {
        name: validate(read_runs(catalog.FOLDER / "runs" / f"{name}.csv"))
        for name in dict.fromkeys(file for _, file, _ in PARTS)
    }
    return [Elsewhere(title, _part(whole[file], chosen)) for title, file, chosen in PARTS]


def _part(whole: Validation, chosen: Chosen) -> Validation:
    outcomes = tuple(filter(chosen, whole.outcomes))
    baselines = {name: tuple(baseline_seconds(outcomes, name)) for name in NAMES}
    return Validation(len(outcomes), {}, outcomes, baselines)
