"""Options of a training: what is not in the plan."""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executor.options import RunOptions
from planner.spec import units
from planner.spec.documents import InputError

DEFAULT_OUTPUT = Path("runs/train")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What to train for, how long, and where results go.

    steps: optimiser steps. learning_rate: the peak; warmup: steps until it (None: a twentieth).
    held_out: global batches of held-out data for the metric. checkpoint_every: steps from one
    checkpoint to the next (None: none), of which `keep` are kept; resume: go on from the newest
    in `output`, or begin where there is none. timeout_seconds, backend, seed,
    clip_norm: as in RunOptions. Raises InputError.
    """

    task: str = "language"
    steps: int = 200
    output: Path = DEFAULT_OUTPUT
    learning_rate: float = 1e-3
    warmup: int | None = None
    clip_norm: float | None = None
    held_out: int = 4
    seed: int = 0
    tensorboard: Path | None = None
    checkpoint_every: int | None = None
    keep: int = 2
    resume: bool = False
    timeout_seconds: float = field(default=60.0, metadata={"flag": "timeout"})
    backend: str = "auto"

    def __post_init__(self) -> None:
        RunOptions(timeout_seconds=self.timeout_seconds, backend=self.backend)
        least = {"steps": 1, "warmup": 0, "held_out": 1, "checkpoint_every": 1, "keep": 1}
        for key, lowest in least.items():
            value = getattr(self, key)
            if value is not None and value < lowest:
                raise InputError(f"--{_dashed(key)}: {value} is too few; give {lowest} or more")
        for key in ("learning_rate", "clip_norm"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"--{_dashed(key)}: {value} is not a positive number; write 1e-3")

    @property
    def warmup_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return max(1, self.steps // 20) if self.warmup is None else self.warmup


def words(options: TrainOptions) -> list[str]:
    """The options as they are written on a command line; `read` gives them back."""
    written: list[str] = []
    for each in dataclasses.fields(TrainOptions):
        value, flag = getattr(options, each.name), f"--{_flag(each)}"
        if value is None or value is False:
            continue
        written += [flag] if value is True else [flag, _text(value)]
    return written


def add_to(parser: argparse.ArgumentParser) -> None:
    """Give a parser one flag per option."""
    for each in dataclasses.fields(TrainOptions):
        flag = f"--{_flag(each)}"
        if each.type is bool:
            parser.add_argument(flag, dest=each.name, action="store_true")
        else:
            parser.add_argument(flag, dest=each.name, type=_reader(each), default=each.default)


def read(given: argparse.Namespace) -> TrainOptions:
    """The options that a parser found. Raises InputError."""
    names = [each.name for each in dataclasses.fields(TrainOptions)]
    return TrainOptions(**{name: getattr(given, name) for name in names})


def read_words(given: Sequence[str]) -> TrainOptions:
    """The options of a command line that holds nothing else. Raises InputError."""
    parser = argparse.ArgumentParser()
    add_to(parser)
    return read(parser.parse_args(given))


def read_seconds(text: str) -> float:
    """A duration as it is written (`60s`). Raises InputError that names --timeout."""
    try:
        return units.parse_seconds(text)
    except units.UnitError as error:
        raise InputError(f"--timeout: {error}") from None


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _reader(each: "dataclasses.Field[Any]") -> Any:
    if each.name == "timeout_seconds":
        return _seconds
    kinds = (int, float, Path, str)
    return next(kind for kind in kinds if each.type in (kind, kind | None))


def _seconds(text: str) -> float:
    """A duration with its unit, or a bare number of seconds, as `words` writes it."""
    return float(text) if text.replace(".", "", 1).isdecimal() else read_seconds(text)


def _flag(each: "dataclasses.Field[Any]") -> str:
    return str(each.metadata.get("flag", _dashed(each.name)))


def _dashed(name: str) -> str:
    return name.replace("_", "-")
