"""Translation between two generated languages: numbers and dates in digits and in words.

    1999-03-03=the third of March nineteen hundred ninety-nine
    seven hundred forty-two=742

A row holds one pair, in one of the two directions, ended by a new line.

    encoder and decoder   the encoder reads the source, the decoder "=" and the translation so far
    decoder alone         reads the source, "=" and the translation so far (a prefix language
                          model; Raffel et al. 2020)

The target is the next byte from the "=" on and zero elsewhere, where there is nothing to say.

Metric: exact match, the share of held-out rows whose translation is right to the last byte. A
model that always takes the most likely byte writes exactly that translation if and only if each
byte is its most likely one after the true bytes before, so no decoding is needed.

A pair is held out if the hash of its digits says so (one in HELD_OUT), in both directions. Row i
of step t is drawn from a generator seeded by (seed, t, i), among the pairs that fit the row.
"""

import calendar
import hashlib
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from executor.training import numerals
from executor.training.language import VOCABULARY, check_bytes
from executor.training.task import Batch, Judged
from planner.spec.documents import InputError
from planner.spec.plan import Plan

HELD_OUT = 10
SHORTEST = 32
"""The fewest bytes of a row: enough for many pairs, though not for the longest (about 80)."""

LANGUAGE = "meshwright numbers and dates, 1"
"""What is generated; another text here means other data."""


class Translation:
    """The task `translation`."""

    name, metric, predicts = "translation", "exact match", True

    def __init__(self, plan: Plan, seed: int):
        self._size = plan.workload.global_batch, plan.workload.seq_len
        self._seed, self._two_stacks = seed, plan.model.encoder is not None
        self.digest = hashlib.blake2b(LANGUAGE.encode(), digest_size=16).hexdigest()

    @staticmethod
    def check(plan: Plan) -> None:
        """Raise InputError unless the plan's model can learn this task."""
        model = plan.model
        if model.main.name != "decoder" or model.head.kind != "language_model":
            raise InputError(
                f"model {model.name}: the task translation needs a decoder, with or without an "
                f"encoder, and the head of a language model; plan such a one (t5-base, gpt2)"
            )
        check_bytes(Translation.name, plan)
        if model.encoder is not None and (model.encoder.embedding.vocab or 0) < VOCABULARY:
            raise InputError(
                f"model {model.name}: the encoder's vocab={model.encoder.embedding.vocab} is too "
                f"small for bytes; plan a model with vocab={VOCABULARY} or more"
            )
        if plan.workload.seq_len < SHORTEST:
            raise InputError(
                f"workload.seq_len={plan.workload.seq_len} is too short for the task translation; "
                f"plan with --seq-len {SHORTEST} or more (96 holds every pair)"
            )

    def training_batch(self, step: int) -> Batch:
        """The global batch of a step."""
        return self._batch(f"{self._seed}:{step}", held_out=False)

    def held_out_batch(self, index: int, count: int) -> Batch:
        """Global batch number `index`; the count does not matter, pairs are generated."""
        return self._batch(f"held out:{index}", held_out=True)

    def value(self, loss: float, judged: Sequence[Judged]) -> float:
        """Exact match."""
        right = [
            ((predicted == targets) | (targets == 0)).all(dim=1) for predicted, targets in judged
        ]
        return float(torch.cat(right).double().mean().item())

    def _batch(self, key: str, held_out: bool) -> Batch:
        count, width = self._size
        rows = [self._row(random.Random(f"{key}:{i}"), held_out) for i in range(count)]
        if self._two_stacks:
            return _sources_and_targets(rows, width)
        whole = torch.zeros(count, width + 1, dtype=torch.int64)
        targets = torch.zeros(count, width, dtype=torch.int64)
        for i, text in enumerate(rows):
            said = text.index("=")
            _write(whole[i], 0, text)
            _write(targets[i], said, text[said + 1 :])
        return whole[:, :-1], targets

    def _row(self, chance: random.Random, held_out: bool) -> str:
        """A pair of the wanted half that fits."""
        return next(
            text
            for digits, text in _pairs(chance)
            if is_held_out(digits) == held_out and len(text) <= self._size[1] + 1
        )


def _sources_and_targets(rows: Sequence[str], width: int) -> Batch:
    """Inputs [rows, 2, width] of an encoder and a decoder, and the targets [rows, width]."""
    inputs = torch.zeros(len(rows), 2, width, dtype=torch.int64)
    targets = torch.zeros(len(rows), width, dtype=torch.int64)
    for i, text in enumerate(rows):
        source, sign, target = text.partition("=")
        _write(inputs[i, 0], 0, source)
        _write(inputs[i, 1], 0, sign + target[:-1])
        _write(targets[i], 0, target)
    return inputs, targets


def _write(row: Tensor, start: int, text: str) -> None:
    row[start : start + len(text)] = torch.tensor(list(text.encode()))


def is_held_out(digits: str) -> bool:
    """Whether a number or date is kept for the metric."""
    digest = hashlib.blake2b(digits.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT == 0


def _pairs(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Endless digits, with the row that translates them or is translated into them."""
    while True:
        digits, words = _date(chance) if chance.random() < 0.5 else _number(chance)
        source, target = (digits, words) if chance.random() < 0.5 else (words, digits)
        yield digits, f"{source}={target}\n"


def _number(chance: random.Random) -> tuple[str, str]:
    value = chance.randrange(10 ** chance.randint(1, 6))
    return str(value), numerals.number(value)


def _date(chance: random.Random) -> tuple[str, str]:
    year, month = chance.randrange(1000, 3000), chance.randint(1, 12)
    day = chance.randint(1, calendar.monthrange(year, month)[1])
    return f"{year:04d}-{month:02d}-{day:02d}", numerals.date(year, month, day)
