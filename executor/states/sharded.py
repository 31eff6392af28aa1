"""Sharded: a unit of which a rank keeps 1/s between uses, for ZeRO 2 and 3.

A unit is the embedding, a layer, the head or a tied matrix; s ranks share it: all d = dp * cp that
hold the same, or with hybrid sharding groups of s that lie together.

    forward    ZeRO 3: gather the weights, compute, free them
    backward   ZeRO 3: gather them when the gradient of the unit's output is there
               gradients are added to a buffer of the whole unit; when the last parameter has its
               own, the buffer is reduce-scattered, 1/s is added to what earlier microbatches
               left, buffer and weights are freed
    reduce     all-reduce of the own 1/s over the d/s copies of it
    publish    ZeRO 2: all-gather of the new weights     ZeRO 3: nothing

A parameter's gradient comes from the node that also used its value, so the unit's weights are used
up exactly when all its parameters have their gradients. In a split backward I makes some of them
and puts matrices aside, whose values it needs no more: with the last of both the weights are freed.
The gradients that I made wait for the microbatch's W, which scatters the unit. Recomputation runs
between gathering and freeing. Freeing leaves tensors in place and resizes their storage: autograd's
saved weights are views of it, and find them again when it is full. A tied matrix that first and
last stage share on one rank is gathered once per pass, by the first to need it.

(Rajbhandari et al. 2020; Zhao et al. 2023 keep the same order, with one message ahead.)
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from executor.parallel import collectives
from executor.parallel.mesh import Mesh
from executor.parallel.split_backward import Deferral, deferred
from executor.states import flat
from executor.states.flat import Plot, Slot, Value
from executor.states.own import make_own, own_range
from executor.transformer.model import Part, Transformer


class Sharded:
    """The buffers of such a unit. zero: 2 or 3."""

    def __init__(
        self,
        model: Transformer,
        plot: Plot,
        mesh: Mesh,
        zero: int,
        device: torch.device,
        dtypes: tuple[torch.dtype, torch.dtype],
        value: Value,
    ):
        self._sharers = sharers = mesh.sharers(plot.experts)
        self._group = sharers.shard.group
        self.plot, self._keeps_weights = plot, zero == 2
        self.weights = torch.zeros(plot.size, dtype=dtypes[0], device=device)
        self.parameters = {
            parameter: slot for slot, parameter in flat.adopt(model, plot, self.weights)
        }
        flat.fill(plot, self.weights, value)
        shards = sharers.shard.size
        held = own_range(plot.size, sharers.shard.rank, shards)
        weights = self.weights[held] if self._keeps_weights else self.weights[held].clone()
        gradients = torch.zeros(len(weights), dtype=dtypes[1], device=device)
        self.own = make_own(plot, mesh, held, shards, weights, gradients)
        self._whole: Tensor | None = None
        self._empty: set[Slot] = set()
        self._gaps = tuple(plot.gaps())
        self.free()

    @property
    def replicated(self) -> list[Tensor]:
        """Gradients that are still to be summed over tp."""
        return [self.own.gradients[self.own.replicated]]

    @property
    def tied(self) -> list[Tensor]:
        """Gradients that are still to be summed over first and last stage."""
        return [self.own.gradients[self.own.tied]]

    def reduce(self) -> None:
        """Sum the own gradients over the copies; over the shards every backward has."""
        collectives.all_reduce(self.own.gradients, self._sharers.copies)

    def publish(self) -> None:
        """Give all ranks the own weights, where they keep them."""
        self.own.publish()
        if self._keeps_weights:
            collectives.all_gather(self.weights, self.own.weights, self._group)

    def clear(self) -> None:
        """Zero the gradients."""
        self.own.gradients.zero_()

    def gather(self) -> None:
        """Make the weights whole, if they are not."""
        storage = self.weights.untyped_storage()
        if not storage.nbytes():
            storage.resize_(self.weights.nbytes)
            collectives.all_gather(self.weights.data, self.own.weights, self._group)

    def free(self) -> None:
        """Let the gathered weights go."""
        if not self._keeps_weights:
            self.weights.untyped_storage().resize_(0)

    def add(self, slot: Slot, gradient: Tensor) -> None:
        """Add one parameter's gradient to those of the running backward."""
        if self._whole is None:
            self._whole = torch.empty(
                self.plot.size, dtype=self.own.gradients.dtype, device=gradient.device
            )
            for gap in self._gaps:
                self._whole[gap].zero_()
            self._empty = set(self.plot.slots)
        view = slot.view(self._whole)
        if slot in self._empty:
            self._empty.remove(slot)
            view.copy_(gradient)
        else:  # the other end of a tied matrix
            view.add_(gradient)

    def scatter(self) -> None:
        """End a use of the unit in a backward: sum its gradients, keep the own, free the rest."""
        assert self._whole is not None
        self.free()
        part = torch.empty_like(self.own.gradients)
        collectives.reduce_scatter(part, self._whole, self._group)
        self._whole = None
        self.own.gradients.add_(part)

    def values(self) -> Iterator[tuple[Slot, Tensor]]:
        """All parameters of the unit, gathered one unit at a time. Collective."""
        self.gather()
        yield from ((slot, slot.view(self.weights)) for slot in self.plot.slots)
        self.free()

    def resident(self) -> Iterator[Tensor]:
        """Every tensor that lives from step to step, but for the optimiser's."""
        if self._keeps_weights:
            yield self.weights
        yield from (self.own.weights, self.own.gradients, self.own.master)

    def gathered(self) -> Iterator[Tensor]:
        """Tensors whose memory comes and goes."""
        if not self._keeps_weights:
            yield self.weights


def watch(part: Part, units: Iterable[Sharded], deferral: Deferral | None) -> None:
    """Let the modules of a stage gather, scatter and free their units as they are used.

    deferral: where the schedule splits the backward.
    """
    owner = {parameter: unit for unit in units for parameter in unit.parameters}
    modules = [module for module in (part.embedding, *part.layers, part.head) if module is not None]
    used = [_units_of(module, owner) for module in modules]
    for index, module in enumerate(modules):
        later = {unit for each in used[index + 1 :] for unit in each}
        done = [unit for unit in used[index] if unit not in later]
        _wrap(module, used[index], done)
    waiting = {p for module in modules for p in deferred(module)} if deferral is not None else set()
    for unit in dict.fromkeys(unit for each in used for unit in each):
        own = [p for module in modules for p in module.parameters() if owner.get(p) is unit]
        _Use(unit, own, deferral, waiting & set(own))


def _units_of(module: nn.Module, owner: dict[nn.Parameter, Sharded]) -> list[Sharded]:
    found = (owner.get(parameter) for parameter in module.parameters())
    return list(dict.fromkeys(unit for unit in found if unit is not None))


def _wrap(module: Any, units: list[Sharded], done: list[Sharded]) -> None:
    module.forward = functools.partial(_forward, module.forward, units, done)


def _forward(
    forward: Callable[..., Tensor], units: list[Sharded], done: list[Sharded], *args: Any
) -> Tensor:
    for unit in units:
        unit.gather()
    y = forward(*args)
    for unit in done:
        unit.free()
    if y.requires_grad:
        y.register_hook(functools.partial(_gather_again, units))
    return y


def _gather_again(units: list[Sharded], gradient: Tensor) -> None:
    for unit in units:
        unit.gather()


class _Use:
    """Counts the gradients of one stage's parameters of a unit, and scatters with the last.

    waiting: those whose gradients come in W where the backward is split; the others' are kept
    until then, by stage and microbatch, unless there are none to wait for.
    """

    def __init__(
        self,
        unit: Sharded,
        parameters: list[nn.Parameter],
        deferral: Deferral | None,
        waiting: set[nn.Parameter],
    ):
        self._unit, self._deferral = unit, deferral
        self._all, self._waiting = len(parameters), len(waiting)
        self._added = self._used = 0
        self._kept: dict[Any, list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._take)
        if deferral is not None:
            deferral.on_taken |= dict.fromkeys(waiting, self._count_use)

    def _take(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:  # it comes in W
            return
        turn = None if self._deferral is None else self._deferral.turn
        if self._waiting and self._deferral is not None and self._deferral.is_open:
            self._kept.setdefault(turn, []).append((parameter, gradient))
            self._count_use()
            return
        self._add(parameter, gradient)
        del gradient  # before the unit's are summed
        if self._waiting and turn is not None and self._added == self._waiting:
            for each in self._kept.pop(turn, ()):
                self._add(*each)
        if self._added == self._all:
            self._added = 0
            self._unit.scatter()

    def _add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        self._unit.add(self._unit.parameters[parameter], gradient)
        self._added += 1

    def _count_use(self) -> None:
        """A value of the unit was used for the last time in an I."""
        self._used += 1
        if self._used == self._all:
            self._used = 0
            self._unit.free()
