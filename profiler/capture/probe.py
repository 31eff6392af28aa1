"""Probe: what one operator costs, asked of torch itself.

An operator is called alone on fake tensors of the sizes it was traced with:

* FlopCounterMode counts the FLOPs of the forward and, through autograd, of the gradients of its
  inputs and of all gradients; the weights' are the difference (attention: attention.py);
* saved-tensor hooks see what autograd keeps: an input, an output, or something made inside;
* an output that shares the storage of an input is a view, which costs nothing.

So composite operators need no formula of their own, and what torch learns to count is counted.
A custom operator without an autograd formula has no backward here; its forward counts if its
FLOPs are registered (torch.utils.flop_counter.register_flop_formula).

Private names of torch used here, tried in 2.11 and 2.13: FakeTensorMode's module, and
UntypedStorage._cdata, the identity of a storage.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from profiler.capture import attention

GROUPED = ("_grouped_mm", "grouped_mm", "grouped_mm_fallback")
"""Products of rows with the weight of their group, in torch and in transformers."""

_METADATA = ("detach", "squeeze", "unsqueeze", "transpose", "t", "swapaxes", "swapdims", "resize")
"""These change in place how a tensor is seen, and no element."""

Kept = tuple[Literal["input", "output", "inside"], int]
"""What autograd keeps: (input, which), (output, which) or (inside, bytes)."""


@dataclass(frozen=True)
class Slot:
    """Place of the n-th tensor among an operator's arguments."""

    number: int


@dataclass(frozen=True)
class Sketch:
    """A tensor's metadata. needs_gradient: autograd follows it. weight: it is a parameter."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str
    needs_gradient: bool
    weight: bool


@dataclass(frozen=True)
class Question:
    """One operator to be asked about: args and kwargs hold Slots for the tensors."""

    target: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    tensors: tuple[Sketch, ...]
    autocast: tuple[Any, ...] = ()

    @property
    def key(self) -> str:
        """Equal for questions with equal answers."""
        return repr((str(self.target), self.args, self.kwargs, self.tensors, self.autocast))


@dataclass(frozen=True)
class Answer:
    """What an operator costs. aliases: for each output the input it is a view of, or None."""

    aliases: tuple[int | None, ...]
    differentiable: tuple[bool, ...]
    forward_flops: int = 0
    input_gradient_flops: int = 0
    weight_gradient_flops: int = 0
    kept: tuple[Kept, ...] = ()


class Prober:
    """Answers questions, each distinct one once."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._known: dict[str, Answer] = {}

    def ask(self, question: Question) -> Answer:
        """The answer; raises what torch raises if the operator cannot be called alone."""
        key = question.key
        if key not in self._known:
            with self._mode, _autocast(question.autocast), torch.enable_grad():
                self._known[key] = _answer(question)
        return self._known[key]


def _autocast(state: tuple[Any, ...]) -> Any:
    if not state:
        return contextlib.nullcontext()
    device, dtype, enabled = state[:3]
    return torch.autocast(device, dtype=dtype, enabled=enabled)


def _answer(question: Question) -> Answer:
    made = [_make(sketch) for sketch in question.tensors]
    given = _mutable(question, made)
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _count() as forward:
        outputs = listed(question.target(*_fill(question.args, given), **_named(question, given)))
    owners = {_identity(tensor): number for number, tensor in enumerate(given)}
    aliases = tuple(owners.get(_identity(out)) for out in outputs)
    follows = tuple(out.requires_grad for out in outputs)
    rule = _rule(question)
    if rule is not None:
        return rule(question, aliases, follows)
    gradients = _gradients(outputs, made, question.tensors)
    return Answer(
        aliases,
        follows,
        forward.get_total_flops(),
        *gradients,
        tuple(_what_is_kept(kept, owners, outputs)),
    )


def _make(sketch: Sketch) -> torch.Tensor:
    made = torch.empty_strided(
        sketch.shape, sketch.stride, dtype=sketch.dtype, device=sketch.device
    )
    return made.requires_grad_() if sketch.needs_gradient else made


def _mutable(question: Question, made: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors to call with: autograd refuses to write into a leaf, so that one is copied."""
    if not (in_place(question.target) and made and question.args):
        return made
    first = question.args[0]
    copied = first.number if isinstance(first, Slot) else -1
    return [tensor.clone() if n == copied else tensor for n, tensor in enumerate(made)]


def in_place(target: Any) -> bool:
    """Whether an operator writes into its first argument (`add_`, not `__and__` or `detach_`)."""
    return _bare(target) != opname(target) and opname(target) not in _METADATA


def opname(target: Any) -> str:
    """An operator's name without namespace, overload and the underscore of writing in place."""
    name = _bare(target)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _bare(target: Any) -> str:
    parts = str(target).split(".")
    return parts[-2] if len(parts) > 1 else parts[0]


def _fill(value: Any, tensors: list[torch.Tensor]) -> Any:
    return replaced(value, lambda slot: tensors[slot.number], Slot)


def _named(question: Question, tensors: list[torch.Tensor]) -> dict[str, Any]:
    return {name: _fill(value, tensors) for name, value in question.kwargs}


def replaced(value: Any, change: Callable[[Any], Any], kind: type) -> Any:
    """A nested argument with every value of one type changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(replaced(inner, change, kind) for inner in value)
    if isinstance(value, dict):
        return {name: replaced(inner, change, kind) for name, inner in value.items()}
    return value


def listed(value: Any) -> list[Any]:
    """The tensors of an operator's result."""
    values = value if isinstance(value, tuple | list) else [value]
    return [inner for inner in values if isinstance(inner, torch.Tensor)]


def _identity(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def _count() -> Iterator[Any]:
    with FlopCounterMode(display=False, custom_mapping=attention.FORMULAS) as counter:
        yield counter


def _gradients(
    outputs: list[torch.Tensor], made: list[torch.Tensor], sketches: tuple[Sketch, ...]
) -> tuple[int, int]:
    """FLOPs of the gradients of the inputs, and of the weights."""
    inputs = [t for t, s in zip(made, sketches, strict=True) if s.needs_gradient and not s.weight]
    weights = [t for t, s in zip(made, sketches, strict=True) if s.needs_gradient and s.weight]
    ends = [out for out in outputs if out.requires_grad]
    of_inputs = _backward_flops(ends, inputs)
    return of_inputs, _backward_flops(ends, [*inputs, *weights]) - of_inputs if weights else 0


def _backward_flops(ends: list[torch.Tensor], wanted: list[torch.Tensor]) -> int:
    if not ends or not wanted:
        return 0
    grads = [torch.empty_like(end) for end in ends]
    try:
        with _count() as counter:
            torch.autograd.grad(ends, wanted, grads, retain_graph=True, allow_unused=True)
    except (RuntimeError, NotImplementedError):  # no autograd formula: a custom operator
        return 0
    return int(counter.get_total_flops())


def _what_is_kept(
    kept: list[torch.Tensor], owners: dict[int, int], outputs: list[torch.Tensor]
) -> Iterator[Kept]:
    made = {_identity(out): number for number, out in enumerate(outputs)}
    seen: set[int] = set()
    for tensor in kept:
        identity = _identity(tensor)
        if identity in seen:
            continue
        seen.add(identity)
        if identity in owners:
            yield "input", owners[identity]
        elif identity in made:
            yield "output", made[identity]
        else:
            yield "inside", int(tensor.untyped_storage().nbytes())


Rule = Callable[[Question, tuple[int | None, ...], tuple[bool, ...]], Answer]


def _rule(question: Question) -> Rule | None:
    """The formula of an operator whose kernel torch's counter does not know, if it is one."""
    if opname(question.target) == "scaled_dot_product_attention":
        return None if _learned_mask(question) else _flash_answer
    return _grouped_answer if opname(question.target) in GROUPED else None


def _learned_mask(question: Question) -> bool:
    mask = question.args[3] if len(question.args) > 3 else dict(question.kwargs).get("attn_mask")
    return isinstance(mask, Slot) and question.tensors[mask.number].needs_gradient


def _flash_answer(
    question: Question, aliases: tuple[int | None, ...], follows: tuple[bool, ...]
) -> Answer:
    q, k, v = (question.tensors[slot.number].shape for slot in question.args[:3])
    kept: list[Kept] = [("input", number) for number in range(len(question.tensors))]
    kept += [("output", 0), ("inside", attention.statistic_bytes(q))]
    return Answer(
        aliases,
        follows,
        attention.forward_flops(q, k, v),
        attention.flash_backward_flops(q, k, v) if follows[0] else 0,
        0,
        tuple(kept) if follows[0] else (),
    )


def _grouped_answer(
    question: Question, aliases: tuple[int | None, ...], follows: tuple[bool, ...]
) -> Answer:
    """Rows x (m, k), each through the (k, n) weight of its group: 2mkn, and so each gradient."""
    x, weight = (question.tensors[slot.number] for slot in question.args[:2])
    flops = 2 * math.prod(x.shape) * weight.shape[-1]
    kept: list[Kept] = [("input", number) for number in range(len(question.tensors))]
    return Answer(
        aliases,
        follows,
        flops,
        flops * (x.needs_gradient + (weight.needs_gradient and not weight.weight)),
        flops if weight.needs_gradient and weight.weight else 0,
        tuple(kept) if any(follows) else (),
    )
