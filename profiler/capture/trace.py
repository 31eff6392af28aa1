"""Trace: a module and its example inputs as torch's exported graph, without storage.

The module is built under FakeTensorMode (not on the meta device: models that look at a mask
fail there) and traced by torch.export in its non-strict way, which runs the module as plain
Python (we know of no module that only the strict way, through bytecode, could trace). The graph
keeps operators as the user called them (linear, scaled_dot_product_attention, layer_norm),
before any decomposition.

What runs is what the module does while it is traced: transformers, for one, writes causal masks
out and repeats grouped keys then. A function with a backward of its own, and a checkpointed
block, are seen through: their operators count with their usual backward, once.

A wrapper around the module returns the tensors of its output only, the loss first, so that
output classes torch does not know (caches, records) need no registration.

Private names of torch that are used here, tried in 2.11 and 2.13:
torch._subclasses.fake_tensor.FakeTensorMode (the class itself is documented, its module is not)
and torch.nn.init._no_grad_trunc_normal_, which reads values to reject outliers and so cannot
run on fake tensors; the values of weights never matter here, so it does nothing meanwhile.
"""

import contextlib
import dataclasses
import io
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from planner.spec.documents import InputError
from profiler.capture import entry
from profiler.capture.entry import Example

_READS_VALUES = {
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "GuardOnDataDependentSymNode",
    "UserError",
}
DATA_WAY_OUT = (
    "a captured module may not read values of tensors; decide by configuration or shapes, or "
    "choose an implementation with fixed shapes (for experts: a grouped matrix product)"
)
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class Captured(torch.nn.Module):
    """Holds the user's module and returns the tensors of its output, the loss first."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.captured = module

    def forward(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """Call the module."""
        found = list(tensors(self.captured(*args, **kwargs)))
        return sorted(found, key=lambda tensor: not _is_loss(tensor))


def _is_loss(tensor: torch.Tensor) -> bool:
    return bool(tensor.dim() == 0 and tensor.is_floating_point())


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists, mappings and dataclasses, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from tensors(inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))


@contextlib.contextmanager
def fake() -> Iterator[FakeTensorMode]:
    """A block in which tensors have no storage."""
    init: Any = torch.nn.init
    kept = getattr(init, "_no_grad_trunc_normal_", None)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        if kept is not None:
            init._no_grad_trunc_normal_ = lambda tensor, *args, **kwargs: tensor
        with mode, torch.device("cpu"):
            yield mode
    finally:
        if kept is not None:
            init._no_grad_trunc_normal_ = kept


def build(make: Callable[[], Any], place: str) -> Example:
    """Call the user's function (inside `fake`). Raises InputError that names where it failed."""
    try:
        returned = make()
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"capture: {place} failed: {_told(error)}") from error
    return entry.read(returned, place)


def export(example: Example, place: str) -> tuple[Any, Captured]:
    """The exported program of an example (inside `fake`), and the wrapper that was traced.

    Raises InputError.
    """
    wrapper = Captured(example.module)
    wrapper.train(example.module.training)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torch prints the graph it gave up on
            exported = torch.export.export(wrapper, example.args, example.kwargs, strict=False)
    except Exception as error:  # the user's code runs inside, and torch has many errors of its own
        raise InputError(f"capture: {place} cannot be traced: {_told(error)}") from error
    return exported, wrapper


def _told(error: Exception) -> str:
    way_out = f"; {DATA_WAY_OUT}" if type(error).__name__ in _READS_VALUES else ""
    return f"{_first_line(error)}{_where(error)}{way_out}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else ''}"


def _where(error: Exception) -> str:
    """The innermost line of the traceback that is neither torch's nor ours."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", *_OURS))
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f" (in {last.name}, {last.filename}:{last.lineno}: {last.line})"
