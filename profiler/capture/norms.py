"""Norms: a norm written in elementary operators becomes one operator.

Transformers' own norms are often modules such as x * rsqrt(mean(x^2) + eps) * weight. If all
steps of one call of a module stand together and are elementwise, casts and reductions, with one
rsqrt (or sqrt, or a reciprocal) and one mean, and the result has the shape of an input, the
module is an rmsnorm; with two means, or a variance, a layernorm. Its bytes are the sum over its
steps: that is what runs, unless a compiler fuses it. What it keeps is what its steps keep.
"""

import itertools
import math

from profiler.capture.steps import Step, Store, Value

_PARTS = ("elementwise", "reduction", "copy")
_ROOTS = {"rsqrt", "sqrt", "reciprocal"}
_VARIANCES = {"var", "std", "var_mean", "std_mean"}


def fused(steps: list[Step]) -> list[Step]:
    """The steps with every hand-written norm as one step."""
    into: dict[Step, Step] = {}
    for path, run in itertools.groupby(steps, key=lambda step: step.path):
        parts = list(run)
        kind = _kind(parts) if path else None
        if kind:
            into |= dict.fromkeys(parts, _joined(parts, kind))
    for step in steps:
        step.sources = [(into.get(source, source), flows) for source, flows in step.sources]
        for store in {value.store for value in step.outputs}:
            store.producers = [into.get(producer, producer) for producer in store.producers]
    return list(dict.fromkeys(into.get(step, step) for step in steps))


def _kind(parts: list[Step]) -> str | None:
    names = [step.target.split(".")[-2] for step in parts if step.kind in _PARTS]
    shapes = {value.shape for part in parts for value in part.inputs}
    if len(names) < len(parts) or parts[-1].outputs[0].shape not in shapes:
        return None
    if not _ROOTS & set(names) and not _VARIANCES & set(names):
        return None
    if _VARIANCES & set(names) or names.count("mean") == 2:
        return "layernorm"
    return "rmsnorm" if names.count("mean") == 1 else None


def _joined(parts: list[Step], kind: str) -> Step:
    inside = set(parts)
    made = {value.store for part in parts for value in part.outputs}
    last = parts[-1]
    read: dict[Store, Value] = {}
    for part in parts:
        for value in part.inputs:
            if value.store not in made:
                read.setdefault(value.store, value)
    shape = last.outputs[0].shape
    return Step(
        last.path,
        f"{last.target} (of {len(parts)})",
        list(read.values()),
        any(part.differentiable for part in parts),
        kind=kind,
        dims={"rows": math.prod(shape[:-1]), "width": shape[-1]},
        outputs=last.outputs,
        sources=[source for part in parts for source in part.sources if source[0] not in inside],
        kept=list(dict.fromkeys(store for part in parts for store in part.kept)),
        inside_bytes=sum(part.inside_bytes for part in parts),
        parts=parts,
    )
