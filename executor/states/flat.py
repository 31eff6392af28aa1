"""Flat buffers: all weights of a unit in one tensor, all gradients in another.

A unit is what is reduced and updated in one piece: a rank's whole share under ZeRO 0 and 1; the
embedding, each layer and the head for themselves under ZeRO 2 and 3, and the tied matrix, so that
first and last stage divide it alike.

    [ replicated over tp | own | tied matrix | padding ]
    0                    R     T             U         P

Parameters are views of the weights, their gradients views of the gradients, so one collective,
one norm, one AdamW and one fill do the work of hundreds, without copies. Autograd adds into the
views in place. Replicated parameters come first, because their gradients are summed over tp in
one piece; the tied matrix comes last, because the last stage leaves its copy out of the norm.
Every slot starts on a 64-byte boundary; P is a multiple of the data-parallel degree.

16-bit weights accumulate their gradients in fp32, which `.grad` cannot hold: a hook adds each
new gradient to the flat buffer and drops it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from executor.parallel.tensor_parallel import ExpertSlice, FusedSlice, Slice
from executor.transformer.model import TIED, Transformer

ALIGNMENT_BYTES = 64

AnySlice = Slice | ExpertSlice | FusedSlice
"""What of a parameter a rank may hold."""

Value = Callable[[str, tuple[int, ...]], Tensor]
"""From a parameter's name and full shape to the whole parameter."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter's place in the flat buffers.

    name: in the whole model (the tied matrix has the embedding's). names: in this stage, two
    for a tied matrix whose both ends are here. shape: of the rank's part of full_shape; part is
    None for a parameter that is whole on every rank. start: in elements.
    """

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    full_shape: tuple[int, ...]
    part: AnySlice | None
    start: int = 0

    @property
    def elements(self) -> int:
        """Of the whole parameter."""
        return math.prod(self.full_shape)

    @property
    def expert(self) -> bool:
        """Whether it belongs to experts, which other ranks share than share the rest."""
        return isinstance(self.part, ExpertSlice)

    @property
    def stop(self) -> int:
        """First element after the slot."""
        return self.start + math.prod(self.shape)

    def view(self, buffer: Tensor) -> Tensor:
        """The slot in a flat buffer, in its shape."""
        return buffer[self.start : self.stop].view(self.shape)

    def cut(self, whole: Tensor) -> Tensor:
        """The rank's part of the whole parameter."""
        return whole if self.part is None else self.part.of(whole)


@dataclass(frozen=True, slots=True)
class Plot:
    """Where the slots lie: R, T, U, P of the drawing above, in elements.

    experts: whether all of them belong to experts; else none does.
    """

    slots: tuple[Slot, ...]
    replicated_end: int
    tied_start: int
    used_end: int
    size: int
    experts: bool = False

    def gaps(self) -> Iterator[slice]:
        """What belongs to no slot."""
        ends = [0, *(slot.stop for slot in self.slots)]
        starts = [*(slot.start for slot in self.slots), self.size]
        return (slice(end, start) for end, start in zip(ends, starts, strict=True) if end < start)


@dataclass(frozen=True, slots=True)
class Flat:
    """The buffers of one unit on one rank, [P] each."""

    plot: Plot
    weights: Tensor
    gradients: Tensor

    def values(self) -> Iterator[tuple[Slot, Tensor]]:
        """All parameters."""
        return ((slot, slot.view(self.weights)) for slot in self.plot.slots)


def find_slots(
    model: Transformer,
    slices: Mapping[str, AnySlice],
    shapes: dict[str, tuple[int, ...]],
    tied: bool,
) -> list[Slot]:
    """The parameters of a stage, each once, not yet placed. shapes: of the whole model."""
    found: dict[str, Slot] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        whole = TIED[0] if tied and name == TIED[1] else name
        if whole in found:
            found[whole] = replace(found[whole], names=(*found[whole].names, name))
        else:
            shape = tuple(parameter.shape)
            found[whole] = Slot(whole, (name,), shape, shapes[whole], slices.get(name))
    return list(found.values())


def units(slots: Iterable[Slot], zero: int, tied: bool) -> list[list[Slot]]:
    """The slots of every unit; experts are units of their own. A rank without parameters has one
    empty unit."""
    found: dict[tuple[str, bool], list[Slot]] = {}
    for slot in slots:
        key = unit_of(slot.name, tied) if zero > 1 else ""
        found.setdefault((key, slot.expert), []).append(slot)
    return list(found.values()) or [[]]


def unit_of(name: str, tied: bool) -> str:
    """The unit of a parameter under ZeRO 2 and 3: `layers.3`, `embedding`, `head`, the tied one."""
    if tied and name in TIED:
        return TIED[0]
    room, *inner = name.split(".")
    return f"{room}.{inner[0]}" if room == "layers" else room


def place(
    slots: Iterable[Slot],
    tp: int,
    tied: bool,
    multiple: int,
    element_bytes: int,
    alike: bool = False,
) -> Plot:
    """Lay the slots out as drawn above. multiple: P is one of it.

    alike: where something is replicated over tp, P is the same on all tp ranks, also where the last
    one has fewer rows, so that their own ranges hold the same of it.
    """
    groups: list[list[Slot]] = [[], [], []]
    for slot in slots:
        groups[_group(slot, tp, tied)].append(slot)
    step = max(ALIGNMENT_BYTES // element_bytes, 1)
    placed: list[Slot] = []
    end, bounds = 0, []
    for group in groups:
        for slot in group:
            placed.append(replace(slot, start=end))
            end = -(-placed[-1].stop // step) * step
        bounds.append(end)
    replicated_end, tied_start, used_end = bounds
    if alike and replicated_end:
        end = sum(-(-_most(slot, tp) // step) * step for slot in placed)
    size = -(-end // multiple) * multiple
    experts = any(slot.expert for slot in placed)
    return Plot(tuple(placed), replicated_end, tied_start, used_end, size, experts)


def _most(slot: Slot, tp: int) -> int:
    """Elements of the slot on the tp rank that has most of it."""
    part, size = slot.part, math.prod(slot.shape)
    if not isinstance(part, Slice):
        return size
    return size // slot.shape[part.dim] * -(-slot.full_shape[part.dim] // tp)


def _group(slot: Slot, tp: int, tied: bool) -> int:
    if tied and slot.name == TIED[0]:
        return 2
    return 0 if tp > 1 and slot.part is None else 1


def flatten(
    model: Transformer,
    plot: Plot,
    device: torch.device,
    weight_dtype: torch.dtype,
    gradient_dtype: torch.dtype,
) -> Flat:
    """Make the buffers and replace every parameter of the model by a view of them."""
    weights = torch.zeros(plot.size, dtype=weight_dtype, device=device)
    gradients = torch.zeros(plot.size, dtype=gradient_dtype, device=device)
    for slot, parameter in adopt(model, plot, weights):
        _accumulate_into(parameter, slot.view(gradients))
    return Flat(plot, weights, gradients)


def adopt(model: Transformer, plot: Plot, weights: Tensor) -> Iterator[tuple[Slot, nn.Parameter]]:
    """Replace the parameters of a unit by views of its weights, one by one."""
    for slot in plot.slots:
        for name in slot.names:
            parameter = nn.Parameter(slot.view(weights))
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, parameter)
            yield slot, parameter


def _accumulate_into(parameter: nn.Parameter, gradient: Tensor) -> None:
    if parameter.dtype == gradient.dtype:
        parameter.grad = gradient
    else:
        parameter.register_post_accumulate_grad_hook(_add_to(gradient))


def _add_to(gradient: Tensor) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        # none comes from the I of a split backward
        if parameter.grad is not None:
            gradient.add_(parameter.grad)
            parameter.grad = None

    return hook


def fill(plot: Plot, weights: Tensor, value: Value) -> None:
    """Write the values of all slots."""
    for slot in plot.slots:
        part = slot.cut(value(slot.name, slot.full_shape))
        slot.view(weights).view(part.shape).copy_(part)
