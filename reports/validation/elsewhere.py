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

MIXTURES = ("deepseek", "qwen3", "gpt-oss", "gpt oss", "grok", "kimi")
"""Models of Megatron-Bridge and NeMo that have experts."""

RACKS = ("gb200", "gb300")
"""Devices whose nodes are racks of one NVLink domain."""


def _is_mixture(outcome: Outcome) -> bool:
    return outcome.model.lower().startswith(MIXTURES)


def _in_racks(outcome: Outcome) -> bool:
    return (outcome.run.gpu or "").lower().startswith(RACKS)


def _of_amd(outcome: Outcome) -> bool:
    return "MI3" in (outcome.run.gpu or "")


def _all(_: Outcome) -> bool:
    return True


BLIND: dict[str, float | None] = {
    "llm_foundry_h100": 0.225,
    "megatron_bridge": 0.28,
    "dgxc_nemo": 0.07,
    "megatron_bridge_2604": 0.061,
    "automodel": None,
    "mlperf": 0.167,
    "primus": 0.19,
    "lumi": 0.256,
    "vtrain_multi": 0.191,
    "megascale_baseline": 0.099,
    "nemo_megatron_2208": 0.154,
    "technical_reports": 0.131,
    "internevo": 0.102,
    "ibm_fsdp": 0.07,
    "dgxc_jax": 0.138,
    "maxtext_tpu": 0.142,
    "ironwood": 1.69,
    "gaudi2": None,
    "neuron": 0.363,
    "dlperf": 0.067,
    "moe_model_zoo": 0.313,
    "nemo_long": 0.072,
    "xtuner": 0.219,
    "mindformers": 0.131,
    "frontier": 0.215,
    "published": 0.145,
    "torchtitan": 0.066,
}
"""Median error of each file on the day it was found, before anything was changed (docs say when);
None where its names or devices were not understood then, or too few rows were."""

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
    (
        "NeMo 24.09 to 25.05, dense, H100",
        "dgxc_nemo",
        lambda o: not _is_mixture(o) and not _in_racks(o),
    ),
    (
        "NeMo 25.05, dense, racks of 72 (GB200)",
        "dgxc_nemo",
        lambda o: not _is_mixture(o) and _in_racks(o),
    ),
    ("NeMo, mixtures (Grok-1, DeepSeek-V3; H100, GB200)", "dgxc_nemo", _is_mixture),
    (
        "Megatron-Bridge 26.04, dense (H100, GB200, GB300)",
        "megatron_bridge_2604",
        lambda o: not _is_mixture(o),
    ),
    (
        "Megatron-Bridge 26.04, mixtures (H100, B200, B300, GB200, GB300)",
        "megatron_bridge_2604",
        _is_mixture,
    ),
    ("NeMo AutoModel, mixtures, H100", "automodel", _all),
    (
        "MLPerf 4.0 and 5.1, dense, 64-11,616 H100, B200, GB200, GB300",
        "mlperf",
        lambda o: not _of_amd(o),
    ),
    ("MLPerf 5.1, MI350X and MI355X", "mlperf", _of_amd),
    ("Primus, MI300X", "primus", _all),
    ("Megatron-DeepSpeed, MI250X", "lumi", _all),
    ("Megatron-DeepSpeed, 64-512 A100 (vTrain)", "vtrain_multi", _all),
    ("Megatron-LM, 175B on 256-12,288 A100 (MegaScale's baseline)", "megascale_baseline", _all),
    ("NeMo Megatron of 2022, A100", "nemo_megatron_2208", _all),
    (
        "Llama 3, Nemotron-4 340B, MT-NLG on 1,536-16,384 H100 and A100",
        "technical_reports",
        _all,
    ),
    ("InternEvo, A100", "internevo", _all),
    ("FSDP of IBM, A100 and H100", "ibm_fsdp", _all),
    ("MaxText and Paxml, H100", "dgxc_jax", _all),
    ("MaxText, TPU v4, v5e, v5p and v6e", "maxtext_tpu", _all),
    ("MaxText, TPU7x, dense", "ironwood", lambda o: not _is_mixture(o)),
    ("MaxText, TPU7x, mixtures", "ironwood", _is_mixture),
    ("Megatron-LM, Gaudi 2", "gaudi2", _all),
    ("NxD, Trainium", "neuron", _all),
    ("Megatron-LM of 2021, 1-32 V100", "dlperf", _all),
    ("Megatron-core, Qwen3-235B, H100, GB200 and GB300", "moe_model_zoo", _all),
    ("NeMo, sequences of 4,096 to a million tokens, H100 and B200", "nemo_long", _all),
    ("DeepSpeed (XTuner), sequences of 8,192 to 131,072, A100", "xtuner", _all),
    ("MindFormers, Ascend 910B", "mindformers", _all),
    ("torchtitan, MI250X", "frontier", _all),
    ("GPT-NeoX, OPT, GLM-130B and DeepSeek-V3, 96-992 A100 and 2,048 H800", "published", _all),
)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One part of a file. blind: the file's median error when it was found; found: what `validate`
    finds of the part today."""

    title: str
    blind: float | None
    found: Validation


def elsewhere() -> list[Elsewhere]:
    """Every part, in the order of the table."""
    whole = {
        name: validate(read_runs(catalog.FOLDER / "runs" / f"{name}.csv"))
        for name in dict.fromkeys(file for _, file, _ in PARTS)
    }
    return [
        Elsewhere(title, BLIND[file], _part(whole[file], chosen)) for title, file, chosen in PARTS
    ]


def _part(whole: Validation, chosen: Chosen) -> Validation:
    outcomes = tuple(filter(chosen, whole.outcomes))
    baselines = {name: tuple(baseline_seconds(outcomes, name)) for name in NAMES}
    return Validation(len(outcomes), {}, outcomes, baselines)
