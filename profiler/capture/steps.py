"""Steps: the operators of a program with what they read, make and keep.

A Store is one piece of memory, a Value a view of it, a Step an operator that made or wrote one.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from planner.spec.graph import UNCLASSIFIED
from profiler.capture.probe import Sketch

StoreOrigin = Literal["parameter", "constant", "input", "step"]


@dataclass(eq=False)
class Store:
    """One piece of memory. producers: the steps that wrote it, the last one of them last.

    weight: which parameter it is. follows: autograd follows what was written into it.
    """

    size_bytes: int
    origin: StoreOrigin
    weight: "Weight | None" = None
    producers: list["Step"] = field(default_factory=list)
    follows: bool = False


@dataclass(frozen=True)
class Weight:
    """A parameter: tied ones are one weight."""

    identity: int
    elements: int
    trainable: bool


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph: a view of a store."""

    store: Store
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str
    follows: bool

    @property
    def needs_gradient(self) -> bool:
        """Whether autograd follows this tensor."""
        return self.follows or self.store.follows

    @property
    def moved_bytes(self) -> int:
        """Bytes to read it: no more than its store holds (an expanded tensor repeats them)."""
        return min(math.prod(self.shape) * int(self.dtype.itemsize), self.store.size_bytes)

    def sketch(self, recording: bool) -> Sketch:
        """Its metadata for the prober."""
        floating = self.dtype.is_floating_point or self.dtype.is_complex
        return Sketch(
            self.shape,
            self.stride,
            self.dtype,
            self.device,
            recording and floating and self.needs_gradient,
            self.store.origin == "parameter",
        )


@dataclass(eq=False)
class Step:
    """One operator. sources: the steps it depends on, and whether a gradient flows back there.

    kept: the stores that autograd keeps for it; inside_bytes: what it keeps beside them.
    parts: the steps that were joined into this one.
    """

    path: str
    target: str
    inputs: list[Value]
    differentiable: bool
    kind: str = UNCLASSIFIED
    dims: dict[str, int] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    sources: list[tuple["Step", bool]] = field(default_factory=list)
    forward_flops: int = 0
    input_gradient_flops: int = 0
    weight_gradient_flops: int = 0
    kept: list[Store] = field(default_factory=list)
    inside_bytes: int = 0
    parts: list["Step"] = field(default_factory=list)


@dataclass(frozen=True)
class Program:
    """The steps of a module in order, its outputs, and what it was given."""

    steps: list[Step]
    outputs: list[Value]
    inputs: list[tuple[str, Value]]
