"""Number formats: what a workload's dtype means for weights, gradients and matrix products."""

import torch

from planner.spec.runtime import Runtime
from planner.spec.workload import Dtype

WEIGHTS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""tf32 is fp32 in memory; only the matrix units of a GPU round it."""


def weight_dtype(dtype: Dtype) -> torch.dtype:
    """Format of weights and activations."""
    return WEIGHTS[dtype]


def gradient_dtype(dtype: Dtype, runtime: Runtime) -> torch.dtype:
    """Format in which gradients accumulate and are reduced."""
    weights = weight_dtype(dtype)
    narrow = torch.empty((), dtype=weights).element_size() < 4
    return torch.float32 if narrow and runtime.widens_gradients(dtype) else weights


def set_matrix_units(dtype: Dtype) -> None:
    """Let the matrix units round fp32 products to tf32 exactly where the workload says tf32."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
