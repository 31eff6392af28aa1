"""Options of a run: what is not in the plan."""

import math
from dataclasses import dataclass

from planner.spec import units
from planner.spec.documents import InputError

CHOICES = ("auto", "gloo", "nccl")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How long and on what to run.

    steps: timed steps, after `warmup` steps that are not. timeout_seconds: how long a rank may
    wait for another. backend: auto takes nccl where there are GPUs, else gloo. clip_norm: gradients
    of a larger norm are scaled down to it. module: a user's own, FILE.py:FUNCTION. Raises
    InputError.
    """

    steps: int = 8
    warmup: int = 3
    timeout_seconds: float = 60.0
    backend: str = "auto"
    seed: int = 0
    learning_rate: float = 1e-3
    clip_norm: float | None = None
    module: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in CHOICES:
            raise InputError(f"--backend: {self.backend!r} is unknown; choose {', '.join(CHOICES)}")
        for key, value, least in (("steps", self.steps, 1), ("warmup", self.warmup, 0)):
            if value < least:
                raise InputError(f"--{key}: {value} is too few; give {least} or more")
        if self.timeout_seconds <= 0:
            raise InputError(f"--timeout: {self.timeout_seconds} s is not positive; write 60s")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(
                f"--clip-norm: {self.clip_norm} is no norm; give a positive number, or leave it out"
            )


def read_options(
    steps: int,
    warmup: int,
    timeout: str,
    backend: str,
    seed: int = 0,
    learning_rate: float = 1e-3,
    clip_norm: float | None = None,
    module: str | None = None,
) -> RunOptions:
    """Options as they are written on a command line (timeout: `60s`). Raises InputError."""
    try:
        seconds = units.parse_seconds(timeout)
    except units.UnitError as error:
        raise InputError(f"--timeout: {error}") from None
    return RunOptions(steps, warmup, seconds, backend, seed, learning_rate, clip_norm, module)
