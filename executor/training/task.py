"""Task: what a model is trained for. Every task draws its batches by step and row alone, so that
all plans see the same data and only divide it differently."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Inputs and targets of a whole step, [global_batch, seq_len] each, on the CPU; the inputs of an
encoder and a decoder are [global_batch, 2, seq_len]."""


Judged = tuple[Tensor, Tensor]
"""Predictions and targets of a whole held-out batch, [global_batch, seq_len] each, on the CPU."""


class Task(Protocol):
    """A source of batches with a metric.

    metric: the name of `value`. digest: identifies the data, equal on all machines that hold
    the same. predicts: whether `value` needs the model's predictions.
    """

    name: str
    metric: str
    digest: str
    predicts: bool

    def training_batch(self, step: int) -> Batch:
        """The global batch of a step."""

    def held_out_batch(self, index: int, count: int) -> Batch:
        """Global batch number `index` of `count` that are never trained on."""

    def value(self, loss: float, judged: Sequence[Judged]) -> float:
        """The metric, from the mean loss over the held-out batches and what was predicted."""
