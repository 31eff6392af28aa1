"""The time of a step that is told as a rate: FLOP/s of a device, or their share of its peak (MFU).

seconds = FLOPs of the step / (devices * rate). The FLOPs are those of the model (6 per parameter
that multiplies and token, attention over all pairs); recomputed ones do not count, as today's
software prints it. What Megatron-LM printed until 2021, and Megatron-DeepSpeed after it, counts the
forward twice where layers are recomputed: 4/3 of the model's FLOPs (SC'21, appendix). MFU is taken
of the peak of the format that the row trains in. Rows with both agree within 2 % (LLM-foundry,
Korthikanti et al., MaxText), nanotron's own MFU within 6 % (medians).
"""

import re

from planner.spec.cluster import Accelerator
from planner.spec.runs.run import Run
from planner.spec.workload import Dtype

COUNTS_RECOMPUTED = r"2021|sc21|megatron.*deepspeed|deepspeed.*megatron|\bbloom"
"""Runtimes and sources whose FLOP/s hold what is recomputed."""


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
