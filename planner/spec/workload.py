"""Workload: how much is computed in one step, in which number format.

fp8 and fp4 are formats of matrix products only: what they multiply is brought to them first, and
weights, activations, gradients and messages stay in bf16, main weights and the optimiser in fp32.
fp4 is a 4-bit float with a scale of 8 bits for every 16 elements, as NVFP4 has it (NVIDIA 2025,
arXiv 2509.25149: all three products of a linear layer; embedding, head, norms, attention and the
reductions of tensor parallelism stay in 16 bits, main weights, gradients and optimiser in fp32).
"""

from typing import Literal

import pydantic

from planner.spec.documents import Document

Dtype = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "fp4"]
Phase = Literal["forward", "backward"]

DTYPE_BYTES: dict[str, int] = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
}
"""Of an element that is stored or sent; nothing is stored in fp4 alone."""

FP4_BYTES = 0.5 + 1 / 16
"""Of an operand of a product in fp4: four bits and its part of a scale."""

WEIGHT_COPY_BYTES = {"fp4": 2 * FP4_BYTES}
"""Kept for every weight besides the stored one: both layouts of what products read, made once for
all microbatches of a step. With fp8 they replace the stored one (fp8_param_gather), 2 bytes again;
Megatron-Bridge's recipe for NVFP4 turns that off."""


LOW_PRECISION = ("fp8", "fp4")
"""Formats of products only: what they multiply is cast to them, what is kept is bf16."""


def stored_dtype(dtype: str) -> str:
    """The format in which weights and activations are kept."""
    return "bf16" if dtype in LOW_PRECISION else dtype


class Workload(Document):
    """One optimiser step of training.

    seq_len: tokens per sequence. global_batch: sequences per step over all devices.
    dtype: format of weights and activations in the matrix products.
    """

    SCHEMA = "workload/1"

    seq_len: int = pydantic.Field(ge=1)
    global_batch: int = pydantic.Field(ge=1)
    dtype: Dtype = "bf16"
    task: Literal["train"] = "train"
    optimizer: Literal["adamw"] = "adamw"

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.seq_len * self.global_batch
