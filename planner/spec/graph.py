"""GraphDocument: the operators of any module, and how they follow each other.

A deep model repeats few layers, so a document stores every distinct layer once:

    operators            outside of the repeated layers, in order of execution
    layers               each distinct layer: its operators and inner edges once, and the module
                         paths (prefixes) where it stands
    edges                [from, to] between any two operators that are not in the same layer

Edges name flat positions: first `operators`, then the layers in their order, each of them once
per prefix: operator i of the p-th prefix of a layer that starts at s is s + p * len + i.
`flat_operators` and `flat_edges` undo the folding; totals are the sum over the flat operators
and are checked on reading. Layers of one `structure` compute the same; they are stored apart
where only the bookkeeping differs (the first layer of a stack may need no gradient of its
input, or introduce the weights that the others share).

FLOPs count a multiply and an add as two, matrix products and convolutions only, as torch's
FlopCounterMode. Bytes count every operand read and every result written once.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self

import pydantic

from planner.spec.documents import Document, Frozen

Edge = tuple[int, int]
UNCLASSIFIED = "unclassified"
"""The kind of an operator that nobody could name; it has bytes, but no FLOPs."""


class GraphSplit(Frozen):
    """A dim that a mesh axis can divide, and what it is made of (graphs of a ModelSpec)."""

    dim: str
    meaning: str
    axis: str


class GraphOperator(Frozen):
    """One operator. In a layer, name and path are relative to the layer's prefix.

    name: unique in its graph. path: the module that calls it. kind and dims: what is computed.
    target: the operator's name in torch, empty where none is known. parameters: elements of the
    weights that this operator is the first to use; frozen_parameters of them get no gradient.
    kernel_share: the part of the FLOPs that a kernel which skips masked keys computes, 1 where
    the mask is unknown.
    saved_bytes: kept from forward to backward, not counting what another operator keeps;
    selective_bytes: the part that selective recomputation makes again. cache_bytes: held in the
    key-value cache afterwards. shape, dtype: of the first output. replicated, expert, splits:
    how a layout divides the operator, known for graphs of a ModelSpec only.
    """

    name: str
    path: str = ""
    kind: str
    target: str = ""
    dims: dict[str, int] = {}
    forward_flops: int = pydantic.Field(default=0, ge=0)
    input_gradient_flops: int = pydantic.Field(default=0, ge=0)
    weight_gradient_flops: int = pydantic.Field(default=0, ge=0)
    kernel_share: float = pydantic.Field(default=1.0, ge=0, le=1)
    forward_bytes: int = pydantic.Field(default=0, ge=0)
    backward_bytes: int = pydantic.Field(default=0, ge=0)
    parameters: int = pydantic.Field(default=0, ge=0)
    frozen_parameters: int = pydantic.Field(default=0, ge=0)
    saved_bytes: int = pydantic.Field(default=0, ge=0)
    selective_bytes: int = pydantic.Field(default=0, ge=0)
    cache_bytes: int = pydantic.Field(default=0, ge=0)
    shape: tuple[int, ...] = ()
    dtype: str = ""
    replicated: bool = False
    expert: bool = False
    splits: tuple[GraphSplit, ...] = ()

    def under(self, prefix: str) -> Self:
        """The operator of a layer that stands at this prefix."""
        return self.model_copy(
            update={"name": joined(prefix, self.name), "path": joined(prefix, self.path)}
        )

    def inside(self, prefix: str) -> Self:
        """The operator as a layer at this prefix stores it; undoes `under`."""
        return self.model_copy(
            update={"name": within(prefix, self.name), "path": within(prefix, self.path)}
        )


def joined(prefix: str, name: str) -> str:
    """The absolute name; `:2` is an operator of the layer's own module."""
    return prefix + name if not name or name.startswith(":") else f"{prefix}.{name}"


def within(prefix: str, name: str) -> str:
    """The name relative to a prefix that it starts with."""
    return name[len(prefix) :].removeprefix(".")


class Totals(Frozen):
    """Sums over operators."""

    operators: int
    parameters: int
    frozen_parameters: int
    forward_flops: int
    input_gradient_flops: int
    weight_gradient_flops: int
    saved_bytes: int

    @classmethod
    def of(cls, operators: Iterable[GraphOperator], **more: int) -> Self:
        """The sums over some operators; more: what no operator accounts for."""
        listed = list(operators)
        names = [name for name in cls.model_fields if name != "operators"]
        sums = {n: sum(getattr(op, n) for op in listed) + more.get(n, 0) for n in names}
        return cls(operators=len(listed), **sums)

    @property
    def backward_flops(self) -> int:
        """FLOPs of the whole backward."""
        return self.input_gradient_flops + self.weight_gradient_flops


class GraphLayer(Frozen):
    """A layer that repeats, or stands beside ones that do.

    container: the prefixes with `*` for what counts them. structure: hash of what the layer
    computes. totals: of one layer.
    """

    container: str
    structure: str
    prefixes: tuple[str, ...] = pydantic.Field(min_length=1)
    operators: tuple[GraphOperator, ...]
    edges: tuple[Edge, ...] = ()
    totals: Totals

    @property
    def count(self) -> int:
        """How many of these layers there are."""
        return len(self.prefixes)

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Self:
        _check_edges(self.edges, len(self.operators))
        _check_totals(self.totals, Totals.of(self.operators))
        return self


class GraphInput(Frozen):
    """One tensor that the module was called with."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Origin(Frozen):
    """What a graph was captured from; no date, so equal captures are equal documents.

    call: MODULE:FUNCTION of the user. mode: train or eval. backward_from: a scalar loss, or all
    float outputs where the module returns no loss.
    """

    torch: str
    module: str
    call: str = ""
    mode: Literal["train", "eval"]
    backward_from: Literal["loss", "outputs", "nothing"]
    inputs: tuple[GraphInput, ...]


class Unclassified(Frozen):
    """Operators of one target that nobody could name: their FLOPs are not counted."""

    target: str
    count: int = pydantic.Field(ge=1)
    where: tuple[str, ...]
    forward_bytes: int = pydantic.Field(ge=0)


class GraphDocument(Document):
    """A graph of operators (see the top of the file for how layers are folded).

    origin is None for the graph of a ModelSpec. unused_parameters: elements of weights that no
    operator reads; totals count them too.
    """

    SCHEMA = "graph/1"

    name: str
    origin: Origin | None = None
    totals: Totals
    unused_parameters: int = pydantic.Field(default=0, ge=0)
    unused_frozen_parameters: int = pydantic.Field(default=0, ge=0)
    operators: tuple[GraphOperator, ...] = ()
    layers: tuple[GraphLayer, ...] = ()
    edges: tuple[Edge, ...] = ()
    unclassified: tuple[Unclassified, ...] = ()

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Self:
        flat = self.flat_operators()
        _check_edges(self.edges, len(flat))
        names = {operator.name for operator in flat}
        if len(names) != len(flat):
            raise ValueError("operators: two have the same name; names must differ")
        _check_totals(self.totals, Totals.of(flat, **self._unused()))
        return self

    def _unused(self) -> dict[str, int]:
        return {
            "parameters": self.unused_parameters,
            "frozen_parameters": self.unused_frozen_parameters,
        }

    def flat_operators(self) -> tuple[GraphOperator, ...]:
        """Every operator by its absolute name, in the order that edges number them."""
        repeated = (
            operator.under(prefix)
            for layer in self.layers
            for prefix in layer.prefixes
            for operator in layer.operators
        )
        return (*self.operators, *repeated)

    def flat_edges(self) -> tuple[Edge, ...]:
        """Every edge between flat positions, sorted."""
        return tuple(sorted((*self.edges, *self._inner_edges())))

    def _inner_edges(self) -> Iterator[Edge]:
        start = len(self.operators)
        for layer in self.layers:
            for _ in layer.prefixes:
                yield from ((start + a, start + b) for a, b in layer.edges)
                start += len(layer.operators)


def _check_edges(edges: tuple[Edge, ...], size: int) -> None:
    wrong = next((edge for edge in edges if not all(0 <= end < size for end in edge)), None)
    if wrong:
        raise ValueError(f"edges: {list(wrong)} names an operator beyond the {size} there are")


def _check_totals(given: Totals, summed: Totals) -> None:
    wrong: dict[str, Any] = {
        key: f"{value} given, the operators sum to {getattr(summed, key)}"
        for key, value in given
        if value != getattr(summed, key)
    }
    if wrong:
        raise ValueError(f"totals: {wrong}; remake the document, or correct the sum")
