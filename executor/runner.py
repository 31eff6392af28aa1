"""Runner: the interpreter that gives actions kernels. It runs its stage's order, nothing else.

F     forward of a microbatch; its autograd graph is kept, its output only until it is sent
B     backward from the received gradient, or from the loss times 1/(microbatches * dp)
SEND  never waits; the tensor is let go once a later message proves that it has arrived
RECV  waits
REDUCE_GRAD, OPTIMIZER   executor.data_parallel
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from executor.apply import Share
from executor.collectives import Group
from executor.data import Microbatches
from executor.mesh import Mesh
from executor.model import widened
from executor.pipeline import settled_sends, travelling_shape
from planner.schedule import lowering
from planner.schedule.action import Action, Kind
from planner.spec.plan import Plan


class Observer(Protocol):
    """Is told of every action, before and after."""

    def before(self, action: Action) -> None:
        """The action starts now."""

    def after(self, action: Action) -> None:
        """The action has been run (on CUDA: issued)."""


@dataclass(slots=True)
class StepState:
    """What a rank holds in the middle of a step, by microbatch.

    inputs: received activations, kept for their gradients. outputs: computed, not yet sent.
    edges: where the backward of a microbatch enters its graph. gradients: received. sends: on
    their way. loss: the rank's share of the step's loss (zero but on the last stage).
    """

    batch: Microbatches
    loss: Tensor
    norm: Tensor
    inputs: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    edges: dict[int, Any] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(default_factory=dict)
    sends: dict[Action, tuple[Any, Tensor]] = field(default_factory=dict)


class Runner:
    """Runs steps of a plan on one rank."""

    def __init__(self, plan: Plan, mesh: Mesh, share: Share, device: torch.device):
        layout = plan.layout
        grid = lowering.lower(layout.schedule, layout.pp, plan.microbatches)
        self.order = grid[mesh.stage]
        self._mesh, self._model, self._updater = mesh, share.model, share.updater
        self._settled = settled_sends(grid, mesh.stage)
        self._shape, self._device = travelling_shape(plan), device
        self._dtype = share.flat.weights.dtype
        self._first, self._last = mesh.stage == 0, mesh.stage == layout.pp - 1
        zero = widened(torch.zeros((), dtype=self._dtype, device=device))
        self._scale = torch.full_like(zero, 1.0 / (plan.microbatches * layout.dp))
        self._state = StepState([], zero, zero)
        self._run: dict[Kind, Callable[[Action], None]] = {
            Kind.FORWARD: self._forward,
            Kind.BACKWARD: self._backward,
            Kind.SEND_FORWARD: self._send_forward,
            Kind.RECEIVE_FORWARD: self._receive_forward,
            Kind.SEND_BACKWARD: self._send_backward,
            Kind.RECEIVE_BACKWARD: self._receive_backward,
            Kind.REDUCE_GRADIENT: self._reduce,
            Kind.OPTIMIZER: self._optimize,
        }

    def step(self, batch: Microbatches, observer: Observer) -> tuple[Tensor, Tensor]:
        """Run one step. Returns the rank's share of the loss and the gradient norm, scalars."""
        zero = torch.zeros_like(self._scale)
        self._state = state = StepState(batch, zero, zero)
        for action in self.order:
            observer.before(action)
            self._run[action.kind](action)
            self._let_go(self._settled.get(action, ()))
            observer.after(action)
        self._let_go(tuple(state.sends))
        return state.loss, state.norm

    def _forward(self, action: Action) -> None:
        state, k = self._state, index(action)
        tokens, targets = state.batch[k]
        y = self._model(tokens if self._first else state.inputs[k], targets if self._last else None)
        state.edges[k] = get_gradient_edge(y)
        if self._last:
            state.loss += y.detach() * self._scale
        else:
            state.outputs[k] = y.detach()

    def _backward(self, action: Action) -> None:
        state, k = self._state, index(action)
        gradient = self._scale if self._last else state.gradients.pop(k)
        torch.autograd.backward(state.edges.pop(k), gradient)

    def _send_forward(self, action: Action) -> None:
        y = self._state.outputs.pop(index(action))
        self._send(action, y, self._mesh.stage + 1, self._mesh.forward)

    def _send_backward(self, action: Action) -> None:
        gradient = self._state.inputs.pop(index(action)).grad
        self._send(action, gradient, self._mesh.stage - 1, self._mesh.backward)

    def _receive_forward(self, action: Action) -> None:
        x = self._receive(self._mesh.stage - 1, self._mesh.forward)
        self._state.inputs[index(action)] = x.requires_grad_()

    def _receive_backward(self, action: Action) -> None:
        gradient = self._receive(self._mesh.stage + 1, self._mesh.backward)
        self._state.gradients[index(action)] = gradient

    def _reduce(self, action: Action) -> None:
        self._updater.reduce()

    def _optimize(self, action: Action) -> None:
        self._state.norm = self._updater.update()

    def _send(self, action: Action, x: Tensor, stage: int, group: Group) -> None:
        work = dist.isend(x.contiguous(), self._mesh.rank_of_stage(stage), group=group)
        self._state.sends[action] = work, x

    def _receive(self, stage: int, group: Group) -> Tensor:
        x = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        dist.irecv(x, self._mesh.rank_of_stage(stage), group=group).wait()
        return x

    def _let_go(self, sends: tuple[Action, ...]) -> None:
        """Drop tensors whose messages have arrived (at the step's end: wait until they have)."""
        for action in sends:
            work, _ = self._state.sends.pop(action)
            work.wait()


def index(action: Action) -> int:
    """The microbatch of an action that has one."""
    assert action.microbatch is not None
    return action.microbatch
