"""Tags: the lexical class of every byte of Python source (token classification).

    0 blank   1 keyword   2 name   3 number   4 string   5 operator   6 comment

The module tokenize says what is right; the text is that of executor.training.corpus, of which
files of plain ASCII are taken, in the order of the hash of their names, up to a size. The model
reads bytes 0 .. 255 and its target at every position is the class of that byte. An encoder sees
both sides; a decoder only what stands before (is `i` the beginning of `if` or of `index`?), so
it cannot reach 1.

Metric: macro F1 over the classes, 2 t / (2 t + f), t: bytes of the class that are found, f: bytes
wrongly given to or taken from it.
"""

import functools
import hashlib
import io
import keyword
import token
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.training import corpus
from executor.training.language import check_bytes
from executor.training.task import Batch, Judged
from planner.spec.documents import InputError
from planner.spec.plan import Plan

CLASSES = ("blank", "keyword", "name", "number", "string", "operator", "comment")
TRAINING_BYTES, HELD_OUT_BYTES = 400_000, 60_000
"""How much is tokenised: tokenize reads about 1 MB/s, and every rank reads for itself."""


@dataclass(frozen=True, slots=True)
class Half:
    """Bytes and their classes, uint8 [length] each."""

    text: Tensor
    classes: Tensor


class Tags:
    """The task `tags`."""

    name, metric, predicts = "tags", "macro F1", True

    def __init__(self, plan: Plan, seed: int):
        self._size = plan.workload.global_batch, plan.workload.seq_len
        self._seed = seed
        self._training, self._held_out, self.digest = read()

    @staticmethod
    def check(plan: Plan) -> None:
        """Raise InputError unless the plan's model can learn this task."""
        model, head = plan.model, plan.model.head
        if model.encoder is not None or head.kind == "sequence_classification":
            raise InputError(
                f"model {model.name}: the task tags needs one stack and a head over tokens; plan "
                f"an encoder with classes of tokens, or a decoder"
            )
        check_bytes(Tags.name, plan)
        if head.classes < len(CLASSES):
            raise InputError(
                f"model {model.name}: head.classes={head.classes} is too few for the task tags, "
                f"which has {len(CLASSES)}"
            )

    def training_batch(self, step: int) -> Batch:
        """The global batch of a step."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        rows, width = self._size
        last = len(self._training.text) - width
        starts = torch.randint(0, last + 1, (rows,), generator=generator)
        return self._windows(self._training, starts)

    def held_out_batch(self, index: int, count: int) -> Batch:
        """Global batch number `index` of `count`, spaced evenly."""
        rows, width = self._size
        last = len(self._held_out.text) - width
        starts = torch.arange(index * rows, (index + 1) * rows) * last // (count * rows)
        return self._windows(self._held_out, starts)

    def value(self, loss: float, judged: Sequence[Judged]) -> float:
        """Macro F1 over the classes that occur."""
        predicted = torch.cat([each.flatten() for each, _ in judged])
        targets = torch.cat([each.flatten() for _, each in judged])
        scores = [
            _f1(predicted == index, targets == index)
            for index in range(len(CLASSES))
            if (targets == index).any()
        ]
        return sum(scores) / len(scores)

    def _windows(self, half: Half, starts: Tensor) -> Batch:
        places = starts.unsqueeze(1) + torch.arange(self._size[1])
        return half.text[places].long(), half.classes[places].long()


@functools.cache
def read() -> tuple[Half, Half, str]:
    """Both halves with their classes, and what identifies them."""
    files = sorted(corpus.source_files(), key=lambda file: _hash(file[0]))
    halves = []
    for limit, held_out in ((TRAINING_BYTES, False), (HELD_OUT_BYTES, True)):
        text, classes = bytearray(), bytearray()
        for name, path in files:
            content = path.read_bytes()
            if corpus.is_held_out(name) == held_out and content.isascii() and len(text) < limit:
                text += content
                classes += classes_of(content)
        halves.append(Half(*(torch.frombuffer(x, dtype=torch.uint8) for x in (text, classes))))
    digest = hashlib.blake2b(digest_size=16)
    for half in halves:
        digest.update(half.text.numpy().tobytes() + half.classes.numpy().tobytes())
    return halves[0], halves[1], digest.hexdigest()


def classes_of(source: bytes) -> bytes:
    """The class of every byte of an ASCII source that Python can read."""
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    found = bytearray(len(source))
    for each in tokenize.tokenize(io.BytesIO(source).readline):
        if kind := _class(each):
            first = starts[each.start[0] - 1] + each.start[1]
            last = starts[each.end[0] - 1] + each.end[1]
            found[first:last] = bytes([kind]) * (last - first)
    return bytes(found)


def _class(found: tokenize.TokenInfo) -> int:
    """The index of a token's class, 0 for what is not a word of the language."""
    if found.type == token.NAME:
        return 1 if keyword.iskeyword(found.string) else 2
    # Python 3.12 and later give f-strings in three parts
    if found.type == token.STRING or token.tok_name[found.type].startswith("FSTRING"):
        return 4
    return {token.NUMBER: 3, token.OP: 5, token.COMMENT: 6}.get(found.type, 0)


def _f1(predicted: Tensor, true: Tensor) -> float:
    both = int((predicted & true).sum())
    either = int((predicted ^ true).sum())
    return 2 * both / (2 * both + either)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
