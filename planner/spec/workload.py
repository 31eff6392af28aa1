"""Workload: how much is computed in one step, in which number format."""

from typing import Literal

import pydantic

from planner.spec.documents import Document

Dtype = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8"]
Phase = Literal["forward", "backward"]

DTYPE_BYTES: dict[str, int] = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
}


def stored_dtype(dtype: str) -> str:
    """The format in which weights and activations are kept: fp8 products keep them in bf16."""
    return "bf16" if dtype == "fp8" else dtype


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
