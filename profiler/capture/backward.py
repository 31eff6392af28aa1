"""Backward: what the gradient reaches, what is kept for it, and the bytes it moves.

The backward starts from the loss (the first output that is one number), or from all outputs
that have a gradient, and reaches the steps that those depend on through tensors with gradients.
Steps beyond have no backward FLOPs. Nothing flows to a frozen weight, nor to a plain input.

Bytes, every operand once: forward reads the inputs and writes the results and what is kept
inside (a mask, statistics); tables are read only in the rows that are looked up. Backward reads
what was kept and the gradient of each result (twice in a product, once for either factor),
writes the gradient of each input, and for a weight reads, adds and writes: three times.

Kept bytes are charged once, to the first step that keeps the memory; memory that several
repeated layers keep (masks, rotary tables, an encoder's output) is charged to the step that
made it, so that equal layers stay equal. Weights and constants are not charged.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.capture.steps import Program, Step, Store, Value

Start = Literal["loss", "outputs", "nothing"]
_PRODUCTS = ("linear", "matmul", "grouped_linear", "convolution", "product")
_TABLES = ("embedding", "indexing")
ACCUMULATED = 3
"""The gradient of a weight is written, read and written again where it is accumulated."""


@dataclass(frozen=True)
class Reach:
    """Where the backward starts, and the steps it reaches."""

    start: Start
    steps: frozenset[Step]


def reach(program: Program) -> Reach:
    """The steps that have a backward."""
    ends = [value for value in program.outputs if value.needs_gradient]
    losses = [value for value in ends if not value.shape]
    start: Start = "loss" if losses else "outputs" if ends else "nothing"
    pending = [p for value in losses[:1] or ends for p in value.store.producers[-1:]]
    reached: set[Step] = set()
    while pending:
        step = pending.pop()
        if step not in reached and step.differentiable:
            reached.add(step)
            pending += [source for source, flows in step.sources if flows]
    return Reach(start, frozenset(reached))


def kept_bytes(steps: Sequence[Step], layer: Mapping[Step, str]) -> dict[Step, int]:
    """Bytes kept for the backward, by the step they are charged to."""
    charged = {step: step.inside_bytes if step.differentiable else 0 for step in steps}
    keepers: dict[Store, list[Step]] = defaultdict(list)
    for step in steps:
        for store in step.kept if step.differentiable else ():
            keepers[store].append(step)
    by_store = {store: step for step in steps for value in step.outputs for store in (value.store,)}
    for store, keeping in keepers.items():
        if store.origin in ("parameter", "constant"):
            continue
        shared = len({layer.get(step) for step in keeping}) > 1
        owner = by_store.get(store) if shared else None
        charged[owner or keeping[0]] += store.size_bytes
    return charged


def forward_bytes(step: Step) -> int:
    """Bytes read and written forward."""
    if step.parts:
        return sum(forward_bytes(part) for part in step.parts)
    written = sum(value.moved_bytes for value in step.outputs)
    read = [value.moved_bytes for value in step.inputs]
    if step.kind in _TABLES and read:
        read[0] = min(read[0], written)
    return sum(read) + written + step.inside_bytes


def backward_bytes(step: Step) -> int:
    """Bytes read and written backward by a step that is reached."""
    if step.parts:
        return sum(backward_bytes(part) for part in step.parts if part.differentiable)
    followed = [value for value in step.inputs if value.needs_gradient]
    uses = len(followed[:2]) if step.kind in _PRODUCTS else 1
    of_results = uses * sum(value.moved_bytes for value in step.outputs if value.needs_gradient)
    kept = sum(store.size_bytes for store in dict.fromkeys(step.kept)) + step.inside_bytes
    return kept + of_results + sum(_gradient_bytes(value) for value in followed)


def _gradient_bytes(value: Value) -> int:
    weight = value.store.weight is not None
    return value.moved_bytes * (ACCUMULATED if weight else 1)
