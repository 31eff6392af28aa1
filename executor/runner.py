"""Runner: the interpreter that gives actions kernels. It runs its rank's order, nothing else.

F     forward of a microbatch; its autograd graph is kept, its output only until it is sent
B     backward from the received gradient, or from the loss times 1/(microbatches * dp * cp)
I, W  the two halves of B                                   executor.parallel.split_backward
SEND  never waits; the tensor is let go once a later message proves that it has arrived
RECV  waits
REDUCE_GRAD, OPTIMIZER   executor.states.data_parallel; the stages of a rank share one buffer, so
                         the last REDUCE_GRAD and the last OPTIMIZER of the rank do the work for
                         all of them

Between neighbouring stages on one rank (the turn of a V) tensors are handed over, not sent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from executor.apply import Share
from executor.data import Microbatches
from executor.formats import weight_dtype
from executor.parallel.mesh import Links, Mesh
from executor.parallel.pipeline import settled_sends, travelling_shape
from executor.parallel.prediction import most_likely
from executor.transformer.head import widened
from planner.schedule import lowering
from planner.schedule.action import Action, Kind
from planner.spec.plan import Plan


class Observer(Protocol):
    """Is told of every action, before and after."""

    def before(self, action: Action) -> None:
        """The action starts now."""

    def after(self, action: Action) -> None:
        """The action has been run (on CUDA: issued)."""


Place = tuple[int, int]
"""Stage and microbatch."""


@dataclass(slots=True)
class StepState:
    """What a rank holds in the middle of a step, by stage and microbatch.

    inputs: received activations, kept for their gradients. outputs: computed, not yet sent.
    edges: where the backward of a microbatch enters its graph. gradients: received. sends: on
    their way. loss: the rank's share of the step's loss (zero but with the last stage).
    """

    batch: Microbatches
    loss: Tensor
    norm: Tensor
    inputs: dict[Place, Tensor] = field(default_factory=dict)
    outputs: dict[Place, Tensor] = field(default_factory=dict)
    edges: dict[Place, Any] = field(default_factory=dict)
    gradients: dict[Place, Tensor] = field(default_factory=dict)
    sends: dict[Action, tuple[Any, Tensor]] = field(default_factory=dict)
    predicts: bool = False
    predicted: list[Tensor] = field(default_factory=list)


class Runner:
    """Runs steps of a plan on one rank."""

    def __init__(self, plan: Plan, mesh: Mesh, share: Share, device: torch.device):
        layout, rank = plan.layout, mesh.coordinate("pp")
        grid = lowering.lower(layout.schedule, layout.pp, plan.microbatches, layout.vpp)
        self.order = grid[rank]
        self._mesh, self._parts, self._updater = mesh, share.parts, share.updater
        self._deferral = share.deferral
        self._settled = settled_sends(grid, rank)
        self._shape, self._device = travelling_shape(plan), device
        self._dtype = weight_dtype(plan.workload.dtype)
        self._last = layout.pp * layout.vpp - 1
        self._head = plan.model.head
        self._final = {action.kind: action for action in self.order}
        zero = widened(torch.zeros((), dtype=self._dtype, device=device))
        self._scale = torch.full_like(zero, 1.0 / (plan.microbatches * mesh.replicas))
        self._state = StepState([], zero, zero)
        self._run: dict[Kind, Callable[[Action], None]] = {
            Kind.FORWARD: self._forward,
            Kind.BACKWARD: self._backward,
            Kind.INPUT_GRADIENT: self._input_gradient,
            Kind.WEIGHT_GRADIENT: self._weight_gradient,
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

    def evaluate(self, batch: Microbatches) -> Tensor:
        """Forwards only, microbatch after microbatch. Returns the rank's share of the loss."""
        return self._forwards(batch, predicts=False).loss

    def predict(self, batch: Microbatches) -> list[Tensor]:
        """What is most likely at every position, by microbatch; none before the last stage."""
        return self._forwards(batch, predicts=True).predicted

    def _forwards(self, batch: Microbatches, predicts: bool) -> StepState:
        zero = torch.zeros_like(self._scale)
        self._state = state = StepState(batch, zero, zero, predicts=predicts)
        with torch.no_grad():
            for k in range(len(batch)):
                self._forward_everywhere(k)
        self._let_go(tuple(state.sends))
        return state

    def _forward_everywhere(self, k: int) -> None:
        """One microbatch through the rank's stages; nothing is kept."""
        for stage in self._parts:
            if stage and stage - 1 not in self._parts:
                self._receive_forward(Action(stage, Kind.RECEIVE_FORWARD, k))
            self._forward(Action(stage, Kind.FORWARD, k))
            self._state.inputs.pop((stage, k), None)
            if (stage, k) in self._state.outputs:
                self._send_forward(Action(stage, Kind.SEND_FORWARD, k))

    def _forward(self, action: Action) -> None:
        state, (stage, k) = self._state, place(action)
        tokens, targets = state.batch[k]
        x = tokens if stage == 0 else state.inputs[stage, k]
        judged = stage == self._last and not state.predicts
        y = self._parts[stage](x, targets if judged else None)
        if y.requires_grad:
            state.edges[stage, k] = get_gradient_edge(y)
        if stage == self._last and state.predicts:
            state.predicted.append(most_likely(y, self._head, self._mesh))
        elif stage == self._last:
            state.loss += y.detach() * self._scale
        elif stage + 1 in self._parts:
            state.inputs[stage + 1, k] = y.detach().requires_grad_()
        else:
            state.outputs[stage, k] = y.detach()

    def _backward(self, action: Action) -> None:
        state, (stage, k) = self._state, place(action)
        gradient = self._scale if stage == self._last else state.gradients.pop((stage, k))
        torch.autograd.backward(state.edges.pop((stage, k)), gradient)
        if stage - 1 in self._parts:
            state.gradients[stage - 1, k] = self._made_gradient(stage, k)

    def _input_gradient(self, action: Action) -> None:
        assert self._deferral is not None
        with self._deferral.opened(*place(action)):
            self._backward(action)

    def _weight_gradient(self, action: Action) -> None:
        assert self._deferral is not None
        self._deferral.finish(*place(action))

    def _made_gradient(self, stage: int, k: int) -> Tensor:
        """The gradient of a stage's input, which is let go."""
        gradient = self._state.inputs.pop((stage, k)).grad
        assert gradient is not None
        return gradient

    def _send_forward(self, action: Action) -> None:
        stage, k = place(action)
        self._send(action, self._state.outputs.pop((stage, k)), stage + 1, self._mesh.forward)

    def _send_backward(self, action: Action) -> None:
        stage, k = place(action)
        self._send(action, self._made_gradient(stage, k), stage - 1, self._mesh.backward)

    def _receive_forward(self, action: Action) -> None:
        x = self._receive(action, action.stage - 1, self._mesh.forward)
        self._state.inputs[place(action)] = x.requires_grad_()

    def _receive_backward(self, action: Action) -> None:
        gradient = self._receive(action, action.stage + 1, self._mesh.backward)
        self._state.gradients[place(action)] = gradient

    def _reduce(self, action: Action) -> None:
        if action == self._final[action.kind]:
            self._updater.reduce()

    def _optimize(self, action: Action) -> None:
        if action == self._final[action.kind]:
            self._state.norm = self._updater.update()

    def _send(self, action: Action, x: Tensor, stage: int, links: Links) -> None:
        group = self._mesh.link(links, action.stage, stage)
        work = dist.isend(x.contiguous(), self._mesh.rank_of_stage(stage), group=group)
        self._state.sends[action] = work, x

    def _receive(self, action: Action, stage: int, links: Links) -> Tensor:
        x = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        group = self._mesh.link(links, stage, action.stage)
        dist.irecv(x, self._mesh.rank_of_stage(stage), group=group).wait()
        return x

    def _let_go(self, sends: tuple[Action, ...]) -> None:
        """Drop tensors whose messages have arrived (at the step's end: wait until they have)."""
        for action in sends:
            work, _ = self._state.sends.pop(action)
            work.wait()


def place(action: Action) -> Place:
    """Stage and microbatch of an action that has one."""
    assert action.microbatch is not None
    return action.stage, action.microbatch
