"""Question: the words of a user made into what a session needs."""

from dataclasses import dataclass
from pathlib import Path

from planner.graph import counts
from planner.spec import catalog, documents, units
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.profile import Profile
from planner.spec.workload import DTYPE_BYTES
from profiler import design, grid, layers, machine, products
from profiler.kinds import DTYPES, OperatorRequest
from profiler.layers import Reference

MOST_MESSAGE_BYTES = 64 << 20
"""Beyond this, time is proportional to size."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to measure. grid: families of the designed grid (profiler.design)."""

    requests: list[OperatorRequest]
    message_sizes: list[int]
    reference: Reference | None
    grid: list[list[OperatorRequest]]


def ask(
    model: str | None, seq_len: int, micro_batches: str, tps: str, dtype: str | None
) -> Question:
    """What a model needs, or the generic grid without one. Raises InputError."""
    device = machine.describe().kind
    chosen = dtype or ("bf16" if device == "cuda" else "fp32")
    if chosen not in DTYPES or chosen == "fp8":
        known = ", ".join(name for name in DTYPES if name != "fp8")
        raise InputError(
            f"--dtype: {chosen!r} cannot be profiled; choose {known} (products in fp8 are measured "
            f"beside bf16 where the device has them)"
        )
    batches, degrees = numbers("--micro-batch", micro_batches), numbers("--tp", tps)
    designed = design.requests(device, chosen, products.has_fp8(device))
    if model is None:
        return Question(grid.generic_requests(chosen, device), [], None, designed)
    spec = catalog.find_model(model)
    layers.check(spec, seq_len)
    reference = Reference.model_validate(
        {"model": spec, "seq_len": seq_len, "micro_batch": max(batches), "dtype": chosen}
    )
    requests = grid.model_requests(spec, seq_len, batches, degrees, chosen)
    sizes = message_sizes(spec, seq_len, batches, chosen)
    return Question(requests, sizes, reference, designed)


def message_sizes(
    model: ModelSpec, seq_len: int, micro_batches: tuple[int, ...], dtype: str
) -> list[int]:
    """Bytes of the messages of a model: activations of each microbatch, and all gradients."""
    stream = [batch * seq_len * model.hidden * DTYPE_BYTES[dtype] for batch in micro_batches]
    gradients = counts.parameters(model) * DTYPE_BYTES[dtype]
    return sorted({min(size, MOST_MESSAGE_BYTES) for size in (*stream, gradients)})


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read `1,2,4` as whole numbers from 1 on. Raises InputError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and int(word) for word in words):
        raise InputError(f"{option}: {text!r} is no list of whole numbers; write 1,2,4")
    return tuple(dict.fromkeys(int(word) for word in words))


def seconds(option: str, text: str) -> float:
    """Read `60s` or `5min` as seconds. Raises InputError."""
    try:
        found = units.parse_seconds(text)
    except units.UnitError as error:
        raise InputError(f"{option}: {error}") from None
    if found <= 0:
        raise InputError(f"{option} {text}: must be more than 0; write 60s or 5min")
    return found


def previous(output: Path, resume: Path | None, fresh: bool) -> Profile | None:
    """The profile to continue: the one asked for, else what is at the output. Raises InputError.

    fresh: nothing is continued.
    """
    if fresh and resume is not None:
        raise InputError(f"--fresh measures all anew, --resume {resume} continues; leave one out")
    path = resume or (output if output.exists() else None)
    if fresh or path is None:
        return None
    found = documents.load(Profile, path)
    if different := machine.differences(found.machine, machine.describe()):
        raise InputError(
            f"{path}: machine: was taken on another machine or torch ({'; '.join(different)}); "
            f"write to another file with -o, or measure all anew with --fresh"
        )
    return found
