"""Embedding: tokens, patches or sound become vectors of the residual stream.

    table lookup (vocabulary-parallel under tp) [─ projection to h] ─┐
    convolutions (channels*kernel, h) [─ class token] ───────────────┴ + positions + types [─ norm]

Positions are read on each rank's own tokens; all sequences have the same, unless sequence
parallelism cuts them anywhere. Relative biases (T5) are made once per stack,
heads * s_q * s_k numbers, and kept for the backward of every layer. A convolution's input is
channels * stride numbers per output; images and sound need no gradient.
"""

import math
from dataclasses import replace

from planner.graph.operator import Node, Operator, Split
from planner.graph.parts import elements, exchange
from planner.graph.parts.assembly import Assembly, Flow
from planner.graph.view import RankView
from planner.spec.layer import Attention
from planner.spec.model import Convolution, Embedding, Stack


def embedding(assembly: Assembly, stack: Stack, prefix: str) -> Flow:
    """Everything before the first layer of a stack. Returns the residual stream."""
    model, view, spec = assembly.model, assembly.view, stack.embedding
    flow = _tokens(assembly, spec, prefix) if spec.vocab else _convolved(assembly, spec, prefix)
    rows, h = view.outer_rows, model.hidden
    if spec.class_token:
        made = elements.elementwise(view, prefix + "class", "class_token", rows, h, parameters=h)
        flow = assembly.add(flow, made)
    if spec.positions != "none":
        flow = assembly.add(flow, _positions(assembly, spec, prefix + "positions"))
    if spec.token_types:
        flow = assembly.add(flow, _types(assembly, spec, prefix + "types"))
    if spec.norm:
        flow = assembly.add(flow, elements.norm(model, view, prefix + "norm"))
    for attention in (kind.attention for kind in stack.kinds):
        if attention.relative_buckets and not _has(assembly, prefix + "relative_bias"):
            assembly.add([], _relative_bias(view, attention, prefix + "relative_bias"))
    return flow


def _has(assembly: Assembly, name: str) -> bool:
    return any(node.name == name for node in assembly.graph)


def _tokens(assembly: Assembly, spec: Embedding, prefix: str) -> Flow:
    model, view = assembly.model, assembly.view
    assert spec.vocab is not None
    size, width, vocab = view.element_bytes, spec.width or model.hidden, view.part(spec.vocab)
    table = Operator(
        name=prefix + "tokens",
        kind="embedding",
        dims=elements.dims_of(rows=view.rows, width=width, vocab=vocab),
        forward_bytes=2 * view.rows * width * size + 8 * view.rows,
        backward_bytes=(2 * view.rows * width + 3 * vocab * width) * size,
        parameters=0 if spec.shared_table else vocab * width,
        saved_bytes=(8 if view.tp == 1 else 9) * view.rows,
        splits=(Split("vocab", "vocabulary", "tp"), elements.rows_split()),
    )
    flow = assembly.add([], table, *exchange.leave(view, width, prefix))
    if width == model.hidden:
        return flow
    project = elements.linear(
        view,
        prefix + "project",
        view.outer_rows,
        width,
        model.hidden,
        keeps_input=True,
        quantizes=False,
    )
    return assembly.add(flow, project)


def _convolved(assembly: Assembly, spec: Embedding, prefix: str) -> Flow:
    model, view, flow = assembly.model, assembly.view, list[Node]()
    rows = view.outer_rows * (view.seq - spec.class_token) // view.seq
    for index, conv in enumerate(spec.convolutions):
        outputs = rows * math.prod(later.stride for later in spec.convolutions[index + 1 :])
        name = f"{prefix}convolution{index}"
        made = _convolution(view, name, conv, outputs, model.hidden)
        flow = assembly.add(flow, replace(made, input_gradient_flops=0) if index == 0 else made)
        if conv.activated:
            act = elements.elementwise(
                view, name + ".activation", "gelu", outputs, model.hidden, saved=1
            )
            flow = assembly.add(flow, act)
    return flow


def _convolution(view: RankView, name: str, conv: Convolution, rows: int, hidden: int) -> Operator:
    k, size = conv.channels * conv.kernel, view.element_bytes
    flops, read = 2 * rows * k * hidden, rows * conv.channels * conv.stride
    moved = (read + k * hidden + rows * hidden) * size
    return Operator(
        name=name,
        kind="convolution",
        dims=elements.dims_of(m=rows, k=k, n=hidden, channels=conv.channels),
        forward_flops=flops,
        input_gradient_flops=flops,
        weight_gradient_flops=flops,
        forward_bytes=moved,
        backward_bytes=2 * moved,
        parameters=k * hidden + hidden,
        replicated=True,
        saved_bytes=read * size,
        splits=(Split("m", "tokens", "dp"),),
    )


def _positions(assembly: Assembly, spec: Embedding, name: str) -> Operator:
    view, h, count = assembly.view, assembly.model.hidden, spec.position_rows
    size, rows, learned = view.element_bytes, view.outer_rows, spec.positions == "learned"
    written = (2 * rows * h + 3 * count * h) if learned else rows * h
    indices = rows if rows < view.rows else view.seq // view.cp
    return Operator(
        name=name,
        kind="position_embedding",
        dims=elements.dims_of(rows=rows, width=h, positions=count),
        forward_bytes=3 * rows * h * size,
        backward_bytes=written * size,
        parameters=count * h,
        replicated=True,
        trainable=learned,
        saved_bytes=8 * indices if learned else 0,
        splits=(elements.rows_split(),),
    )


def _types(assembly: Assembly, spec: Embedding, name: str) -> Operator:
    view, h = assembly.view, assembly.model.hidden
    made = elements.elementwise(
        view, name, "type_embedding", view.outer_rows, h, reads=2, parameters=spec.token_types * h
    )
    return replace(made, saved_bytes=8 * view.outer_rows)


def _relative_bias(view: RankView, attention: Attention, name: str) -> Operator:
    heads, pairs = view.part(attention.heads), view.seq * view.keys
    moved = heads * pairs * view.element_bytes
    return Operator(
        name=name,
        kind="relative_bias",
        dims=elements.dims_of(heads=heads, pairs=pairs, buckets=attention.relative_buckets),
        forward_bytes=2 * moved,
        backward_bytes=2 * moved,
        parameters=heads * attention.relative_buckets,
        saved_bytes=moved + 8 * pairs,
        splits=(Split("heads", "heads", "tp"),),
    )
