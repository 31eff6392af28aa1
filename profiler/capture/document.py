"""Document: a module as a graph document.

    capture(module, args, kwargs)     a module that exists, with fake or real weights
    capture_entry("file.py:build")    the user's function, called on fake tensors

The order is: isolate torch's state, build, export, read the steps, join hand-written norms,
follow the backward, name the operators, fold the repeated layers.

Operators are named by the path of their module and their number in it (`encoder.layers.0:2`).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from planner.graph.structure import repetition
from planner.spec.documents import InputError
from planner.spec.graph import (
    UNCLASSIFIED,
    Edge,
    GraphDocument,
    GraphInput,
    GraphOperator,
    Origin,
    Totals,
    Unclassified,
)
from profiler.capture import backward, entry, norms, trace
from profiler.capture.backward import Reach
from profiler.capture.entry import Example
from profiler.capture.isolation import isolated
from profiler.capture.steps import Program, Step, Weight
from profiler.capture.walk import program

PLACES = 3
"""How many places of an unclassified operator a document names."""
OUTERMOST = "self"
"""Name of the captured module itself in the names of its own operators."""


def capture(
    module: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    name: str = "",
) -> GraphDocument:
    """The graph of a module and its example inputs. Raises InputError if it cannot be traced."""
    with isolated(), trace.fake():
        return _captured(Example(module, tuple(args), kwargs or {}), "the module", name, "")


def capture_entry(place: str, *, name: str = "") -> GraphDocument:
    """The graph of what MODULE:FUNCTION builds on fake tensors. Raises InputError."""
    with isolated():
        make = entry.find(place)
        with trace.fake():
            example = trace.build(make, place)
            return _captured(example, place, name, place)


def _captured(example: Example, place: str, name: str, call: str) -> GraphDocument:
    exported, wrapper = trace.export(example, place)
    traced = program(exported, wrapper)
    if not traced.outputs:
        raise InputError(f"capture: {place}: the module returns no tensors; return at least one")
    steps = norms.fused(traced.steps)
    reached = backward.reach(traced)
    edges = _edges(steps)
    operators = _operators(steps, edges, reached)
    folded = repetition.fold(operators, edges)
    unused = _unused(steps, wrapper)
    return GraphDocument(
        name=name or type(example.module).__name__,
        origin=_origin(example, traced, reached, call),
        totals=Totals.of(operators, **_prefixed(unused, "")),
        operators=folded.operators,
        layers=folded.layers,
        edges=folded.edges,
        unclassified=tuple(_unclassified(operators)),
        **_prefixed(unused, "unused_"),
    )


def _prefixed(counts: tuple[int, int], prefix: str) -> dict[str, Any]:
    return {f"{prefix}parameters": counts[0], f"{prefix}frozen_parameters": counts[1]}


def _origin(example: Example, traced: Program, reached: Reach, call: str) -> Origin:
    cls = type(example.module)
    return Origin(
        torch=torch.__version__,
        module=f"{cls.__module__}.{cls.__qualname__}",
        call=call,
        mode="train" if example.module.training else "eval",
        backward_from=reached.start,
        inputs=tuple(
            GraphInput(name=given, shape=value.shape, dtype=_dtype(value.dtype))
            for given, value in traced.inputs
        ),
    )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _edges(steps: list[Step]) -> list[Edge]:
    place = {step: number for number, step in enumerate(steps)}
    return sorted({(place[s], place[step]) for step in steps for s, _ in step.sources})


def _operators(steps: list[Step], edges: list[Edge], reached: Reach) -> list[GraphOperator]:
    named = [
        _operator(step, name, weights, step in reached.steps)
        for step, name, weights in zip(steps, _names(steps), _introduced(steps), strict=True)
    ]
    layer = repetition.layers_of(named, edges)
    where = {steps[number]: prefix for number, prefix in layer.items()}
    kept = backward.kept_bytes(steps, where)
    return [
        operator.model_copy(update={"saved_bytes": kept[step]})
        for operator, step in zip(named, steps, strict=True)
    ]


def _operator(step: Step, name: str, weights: list[Weight], reached: bool) -> GraphOperator:
    first = step.outputs[0]
    return GraphOperator(
        name=name,
        path=step.path,
        kind=step.kind,
        target=step.target,
        dims=step.dims,
        forward_flops=step.forward_flops,
        input_gradient_flops=step.input_gradient_flops if reached else 0,
        weight_gradient_flops=step.weight_gradient_flops if reached else 0,
        forward_bytes=backward.forward_bytes(step),
        backward_bytes=backward.backward_bytes(step) if reached else 0,
        parameters=sum(weight.elements for weight in weights),
        frozen_parameters=sum(weight.elements for weight in weights if not weight.trainable),
        shape=first.shape,
        dtype=_dtype(first.dtype),
    )


def _names(steps: list[Step]) -> Iterable[str]:
    used: dict[str, int] = defaultdict(int)
    for step in steps:
        path = step.path or OUTERMOST
        yield f"{path}:{used[path]}"
        used[path] += 1


def _introduced(steps: list[Step]) -> Iterable[list[Weight]]:
    """For each step the weights that no step before it used."""
    seen: set[int] = set()
    for step in steps:
        read = {v.store.weight.identity: v.store.weight for v in step.inputs if v.store.weight}
        yield [weight for identity, weight in read.items() if identity not in seen]
        seen |= set(read)


def _unused(steps: list[Step], wrapper: torch.nn.Module) -> tuple[int, int]:
    """Elements of all weights, and of frozen ones, that no step reads."""
    used = {v.store.weight.identity for s in steps for v in s.inputs if v.store.weight}
    idle = [weight for weight in wrapper.parameters() if id(weight) not in used]
    return (
        sum(weight.numel() for weight in idle),
        sum(weight.numel() for weight in idle if not weight.requires_grad),
    )


def _unclassified(operators: list[GraphOperator]) -> Iterable[Unclassified]:
    by_target: dict[str, list[GraphOperator]] = defaultdict(list)
    for operator in operators:
        if operator.kind == UNCLASSIFIED:
            by_target[operator.target].append(operator)
    for target, found in by_target.items():
        yield Unclassified(
            target=target,
            count=len(found),
            where=tuple(operator.name for operator in found[:PLACES]),
            forward_bytes=sum(operator.forward_bytes for operator in found),
        )
