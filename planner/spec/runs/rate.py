"""The time of a step that is told as a rate: FLOP/s of a device, or their share of its peak (MFU).

seconds = FLOPs of the step / (devices * rate). The FLOPs are those of the model (6 per parameter
that multiplies and token, attention over all pairs); recomputed ones do not count, as today's
software prints it. What Megatron-LM printed until 2021, and Megatron-DeepSpeed after it, counts the
forward twice where layers are recomputed: 4/3 of the model's FLOPs (SC'21, appendix); so do NeoX
(get_flops in megatron/logging.py) and metaseq (OPT's 4.3e23 for 300 billion tokens). Megatron-core
since 2025 and what is built on it count the half of the pairs that a causal mask leaves ("only half
of the mask is non-zero", megatron/training/training.py; NeMo 25.04 did not: its sequences of a
million tokens would be at 71 % of a B200). Half the attention of a sequence is that of two of half
its length. MFU is taken of the peak of the format that the row trains in. Rows with both agree
within 2 % (LLM-foundry, Korthikanti et al., MaxText), nanotron's own MFU within 6 % (medians).
"""

import re
from collections.abc import Callable

from planner.spec.cluster import Accelerator
from planner.spec.model import ModelSpec
from planner.spec.runs.run import Run
from planner.spec.workload import Dtype, Workload

Flops = Callable[[ModelSpec, Workload], float]
"""Model FLOPs of one step."""

COUNTS_RECOMPUTED = r"2021|sc21|megatron.*deepspeed|deepspeed.*megatron|\bbloom|neox|metaseq"
"""Runtimes and sources whose FLOP/s hold what is recomputed."""


COUNTS_HALF = r"megatron.?bridge|automodel"
SINCE_2025 = r"megatron|mcore"
"""Software whose FLOP/s hold the half of attention: whenever, and of a year that the row tells."""


def counted_flops(run: Run, flops: Flops, model: ModelSpec, workload: Workload) -> float:
    """The FLOPs that the row's rate counts, none of them twice."""
    name = (run.runtime or "").lower()
    new = (run.year or 0) >= 2025 and "deepspeed" not in name and re.search(SINCE_2025, name)
    if not (new or re.search(COUNTS_HALF, name)):
        return flops(model, workload)
    half, twice = workload.seq_len // 2, 2 * workload.global_batch
    return flops(model, workload.replace(seq_len=half, global_batch=twice))


def seconds_by_rate(
    run: Run, flops: float, device: Accelerator, devices: int, dtype: Dtype, full_recompute: bool
) -> tuple[float | None, tuple[str, ...]]:
    """Seconds of a step of so many model FLOPs at the row's rate, None if it tells none."""
    if run.tflops_per_gpu:
        twice = full_recompute and re.search(COUNTS_RECOMPUTED, _about(run)) is not None
        note = "step time from tflops_per_gpu" + (", recomputation counted" if twice else "")
        return flops * (4 / 3 if twice else 1) / (run.tflops_per_gpu * 1e12 * devices), (note,)
    if run.mfu_pct:
        peak = device.peak_flops[dtype]
        return flops / (run.mfu_pct / 100 * peak * devices), (f"step time from mfu_pct of {dtype}",)
    return None, ()


def _about(run: Run) -> str:
    return " ".join(filter(None, (run.runtime, run.source))).lower()
