"""Elements: the operators that layers, embeddings and heads are made of.

FLOPs of a product (m,k)x(k,n) are 2mkn forward, 2mkn for the gradient of the input and 2mkn for
that of the weights. Bytes: every input read and every output written once; an accumulated
weight gradient is read and written. Kept for the backward:

    linear       its input (once, where several linears read the same); in one byte an element
                 where it is quantised (view.quantized_inputs), and then that of attention's output
                 too, which attention keeps in 16 bits
    norm         its input and its statistics
    activation   its input (relu: its output, which is kept as the next operand anyway); a gated
                 one the activated gate and the other part too, operands of their product
    the rest     nothing

An RMS norm made of elementary operators (view.fused_norms is false) widens its input to fp32 and
keeps that, and the normalised input where a weight multiplies it.
"""

from planner.graph.operator import Dims, Meaning, Operator, Split
from planner.graph.view import RankView
from planner.spec.layer import MLP
from planner.spec.model import ModelSpec
from planner.spec.runtime import Axis

FP32_BYTES = 4
"""The loss and the statistics of norms and softmax are kept in fp32."""

QUANTIZED_BYTES = 1
"""Of a kept operand in fp8, scales of blocks left out; fp4 keeps less, which is not counted."""


def dims_of(**sizes: int) -> Dims:
    """Dims in the order of their names."""
    return tuple(sorted(sizes.items()))


def rows_split(axis: Axis = "dp") -> Split:
    """Rows are tokens, which an axis divides."""
    return Split("rows", "tokens", axis)


def kept_bytes(view: RankView) -> int:
    """Bytes of an element of what a product of a layer keeps of its input."""
    return QUANTIZED_BYTES if view.quantized_inputs else view.element_bytes


def linear(
    view: RankView,
    name: str,
    m: int,
    k: int,
    n: int,
    *,
    bias: bool = False,
    keeps_input: bool = False,
    quantizes: bool = True,
    column: Meaning | None = None,
    row: Meaning | None = None,
) -> Operator:
    """A matrix product (m,k)x(k,n) with the sizes on this rank.

    column, row: what the columns or the rows of the weight are made of, where tp divides them;
    with neither the weight is the same on every tp rank. A row-parallel bias is added once,
    after the partial sums are reduced, so it is not in the product. quantizes: whether a low
    precision reaches it, which it does in layers, but for routers.
    """
    size, flops = view.element_bytes, 2 * m * k * n
    kept = kept_bytes(view) if quantizes else size
    apart = view.tp > 1 and row is not None
    splits = [Split("m", "tokens", "dp")]
    splits += [Split("n", column, "tp")] if column else []
    splits += [Split("k", row, "tp")] if row else []
    return Operator(
        name=name,
        kind="linear",
        dims=dims_of(m=m, k=k, n=n, bias=int(bias and not apart)),
        forward_flops=flops,
        input_gradient_flops=flops,
        weight_gradient_flops=flops,
        forward_bytes=(m * k + k * n + m * n) * size,
        backward_bytes=(2 * m * k + 4 * k * n + 2 * m * n) * size,
        parameters=k * n + (n if bias else 0),
        replicated=not (column or row),
        saved_bytes=m * k * kept if keeps_input else 0,
        splits=tuple(splits),
    )


def norm(
    model: ModelSpec,
    view: RankView,
    name: str,
    *,
    rows: int | None = None,
    width: int | None = None,
    kind: str | None = None,
    keeps_input: bool = True,
) -> Operator:
    """A norm of `rows` vectors (the residual stream's unless told), the same on every tp rank."""
    rows, width = view.outer_rows if rows is None else rows, width or model.hidden
    kind, size = kind or model.norm, view.element_bytes
    vectors = 2 if kind == "layernorm" else 1
    return Operator(
        name=name,
        kind=kind,
        dims=dims_of(rows=rows, width=width),
        forward_bytes=2 * rows * width * size,
        backward_bytes=3 * rows * width * size,
        parameters=vectors * width if model.norm_affine else 0,
        replicated=True,
        saved_bytes=rows * _kept_by_norm(view, kind, width, model.norm_affine, keeps_input),
        splits=(rows_split("tp"),),
    )


def _kept_by_norm(view: RankView, kind: str, width: int, affine: bool, keeps_input: bool) -> int:
    """Bytes per row: the input unless another operator keeps it, and the statistics (torch's
    LayerNorm on CPUs has them in the format of its input)."""
    size, wide = view.element_bytes, max(view.element_bytes, FP32_BYTES)
    if kind == "layernorm" or view.fused_norms:
        statistics = 2 * (wide if view.fused_norms else size) if kind == "layernorm" else wide
        return width * size * keeps_input + statistics
    copied = wide > size
    return width * wide * ((keeps_input or copied) + affine) + wide


def rotary(view: RankView, name: str, heads: int, width: int) -> Operator:
    """Rotated positions of `heads` (on this rank) vectors of `width` per token."""
    moved = 6 * view.rows * heads * width * view.element_bytes
    return Operator(
        name=name,
        kind="rotary",
        dims=dims_of(rows=view.rows, heads=heads, head_dim=width),
        forward_bytes=moved,
        backward_bytes=moved,
        splits=(Split("heads", "heads", "tp"), rows_split()),
    )


def activation(view: RankView, name: str, mlp: MLP, rows: int, width: int) -> Operator:
    """The activation of an MLP with `width` columns on this rank, times the gated part."""
    moved = rows * width * view.element_bytes
    kept = 0 if mlp.activation == "relu" or (mlp.gated and view.fused_gate) else 1
    return Operator(
        name=name,
        kind=("gated_" if mlp.gated else "") + mlp.activation,
        dims=dims_of(rows=rows, width=width),
        forward_bytes=(5 if mlp.gated else 2) * moved,
        backward_bytes=(8 if mlp.gated else 3) * moved,
        saved_bytes=(kept + (2 if mlp.gated else 0)) * moved,
        splits=(Split("width", "ffn", "tp"), rows_split()),
    )


def residual(model: ModelSpec, view: RankView, name: str, terms: int = 2) -> Operator:
    """The sum of the stream and what a block adds to it."""
    moved = view.outer_rows * model.hidden * view.element_bytes
    return Operator(
        name=name,
        kind="residual",
        dims=dims_of(rows=view.outer_rows, width=model.hidden),
        forward_bytes=(terms + 1) * moved,
        backward_bytes=(terms + 1) * moved,
        splits=(rows_split("tp"),),
    )


def elementwise(
    view: RankView,
    name: str,
    kind: str,
    rows: int,
    width: int,
    *,
    reads: int = 1,
    saved: int = 0,
    parameters: int = 0,
) -> Operator:
    """One pass over [rows, width]: `reads` operands and one result; saved: operands kept.

    parameters, if any, are the same on every tp rank.
    """
    moved = rows * width * view.element_bytes
    return Operator(
        name=name,
        kind=kind,
        dims=dims_of(rows=rows, width=width),
        forward_bytes=(reads + 1) * moved,
        backward_bytes=(reads + 1 + saved) * moved,
        parameters=parameters,
        replicated=parameters > 0,
        saved_bytes=saved * moved,
        splits=(rows_split(),),
    )
