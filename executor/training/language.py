"""Language modelling: the next byte of Python's own source (executor.training.corpus).

    tokens   bytes 0 .. 255, the zero byte ends a file
    metric   perplexity of the held-out files, exp(mean over bytes of -log p(byte | bytes before))

Step t draws the starts of all its windows from a generator seeded by (seed, t); row i of the
global batch is window i, whoever computes it. Held-out windows are spaced evenly.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from executor.training import corpus
from executor.training.task import Batch, Judged
from planner.spec.documents import InputError
from planner.spec.plan import Plan

VOCABULARY = 256


def check_bytes(name: str, plan: Plan) -> None:
    """Raise InputError unless the plan's model knows every byte."""
    if plan.model.vocab < VOCABULARY:
        raise InputError(
            f"model {plan.model.name}: vocab={plan.model.vocab} is too small for the task "
            f"{name}, which reads bytes; plan a model with vocab={VOCABULARY} or more"
        )


class Language:
    """The task `language`."""

    name, metric, predicts = "language", "perplexity", False

    def __init__(self, plan: Plan, seed: int):
        self._size = plan.workload.global_batch, plan.workload.seq_len
        self._seed = seed
        self._text = corpus.read()
        self.digest = self._text.digest

    @staticmethod
    def check(plan: Plan) -> None:
        """Raise InputError unless the plan's model can learn this task."""
        model = plan.model
        if model.encoder or model.main.name != "decoder" or model.head.kind != "language_model":
            raise InputError(
                f"model {model.name}: the task language needs one decoder with the head of a "
                f"language model; plan such a one (gpt2, llama3.2-1b)"
            )
        check_bytes(Language.name, plan)

    def training_batch(self, step: int) -> Batch:
        """The global batch of a step."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        rows, width = self._size
        last = len(self._text.training) - width - 1
        return self._windows(
            self._text.training, torch.randint(0, last + 1, (rows,), generator=generator)
        )

    def held_out_batch(self, index: int, count: int) -> Batch:
        """Global batch number `index` of `count`."""
        rows, width = self._size
        last = len(self._text.held_out) - width - 1
        starts = torch.arange(index * rows, (index + 1) * rows) * last // (count * rows)
        return self._windows(self._text.held_out, starts)

    def value(self, loss: float, judged: Sequence[Judged]) -> float:
        """Perplexity."""
        return math.exp(loss)

    def _windows(self, text: Tensor, starts: Tensor) -> Batch:
        _, width = self._size
        rows = text[starts.unsqueeze(1) + torch.arange(width + 1)].long()
        return rows[:, :-1], rows[:, 1:]
