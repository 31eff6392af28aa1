"""Decoder-only Transformers as graphs of operators: embedding, layers, head.

One layer, pre-norm, on rows = b*s tokens (h hidden, a heads, g kv heads, d head_dim, f ffn):

    x ─ norm ─ [gather] ─ q,k,v (rows,h)x(h,ad|gd|gd) ─ [rotary] ─ attention core
      ─ o (rows,ad)x(ad,h) ─ [scatter] ─ + x = y
    y ─ norm ─ [gather] ─ up (and gate) (rows,h)x(h,f) ─ activation ─ down (rows,f)x(f,h)
      ─ [scatter] ─ + y

The brackets exist under tensor parallelism: with sequence parallelism an all-gather before and
a reduce-scatter after each block, without it one all-reduce after each block; the backward
mirrors them.

What each operator keeps for its backward (elements per microbatch, before tp):
norms their input (rows*h); q/k/v together their one input (rows*h); the attention core q, k, v
and its output (rows*(2ad + 2gd)) and, without flash, the scores (b*a*s*s, twice: before and
after softmax); up/gate together one input (rows*h); the activation its inputs and a gated one
its product's operands; down its input (rows*f). Summed for MHA and f = 4h this is
16*rows*h elements, 32*s*b*h bytes in 16 bits (Korthikanti et al. 2022 count 34 with two dropout
masks). Each tensor is charged once, to the operator that keeps it first.
"""

import itertools
from collections.abc import Iterable

import networkx as nx

from planner.graph.operator import Collective, Dims, Node, Operator
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from planner.spec.profile import Phase
from planner.spec.runtime import Axis

LOSS_BYTES = 4
"""The loss and the statistics of norms and softmax are kept in fp32."""


def model_graph(model: ModelSpec, view: RankView) -> nx.DiGraph:
    """The whole model on one rank: embedding, all layers, head, joined by the residual stream."""
    blocks = [embedding_graph(model, view)]
    blocks += [layer_graph(model, view, f"layer{index}.") for index in range(model.layers)]
    blocks += [head_graph(model, view, holds_embedding=True)]
    graph = nx.compose_all(blocks)
    for before, after in itertools.pairwise(blocks):
        graph.add_edges_from((out, inp) for out in _sinks(before) for inp in _sources(after))
    return graph


def embedding_graph(model: ModelSpec, view: RankView) -> nx.DiGraph:
    """Token embedding (vocabulary-parallel under tp) and learned positions."""
    size, h, vocab = view.element_bytes, model.hidden, view.part(model.vocab)
    nodes: list[Node] = [
        Operator(
            name="embedding.tokens",
            kind="embedding",
            dims=_dims(rows=view.rows, width=h, vocab=vocab),
            forward_bytes=2 * view.rows * h * size + 8 * view.rows,
            backward_bytes=(2 * view.rows * h + 3 * vocab * h) * size,
            parameters=vocab * h,
            saved_bytes=8 * view.rows,
            splits=_splits(vocab="tp", rows="dp"),
        ),
        *_after_block(view, h, "embedding."),
    ]
    if model.positions == "learned":
        nodes.append(_positions(model, view))
    return _chain(nodes)


def _positions(model: ModelSpec, view: RankView) -> Operator:
    size, h, rows = view.element_bytes, model.hidden, view.outer_rows
    return Operator(
        name="embedding.positions",
        kind="position_embedding",
        dims=_dims(rows=rows, width=h, positions=model.max_positions),
        forward_bytes=3 * rows * h * size,
        backward_bytes=(2 * rows * h + 3 * model.max_positions * h) * size,
        parameters=model.max_positions * h,
        replicated=True,
        splits=_splits(rows="dp"),
    )


def layer_graph(model: ModelSpec, view: RankView, prefix: str = "layer.") -> nx.DiGraph:
    """One Transformer layer as one rank sees it."""
    graph = nx.DiGraph()
    entry = _norm(model, view, prefix + "attention.norm")
    attended = _attention(graph, model, view, prefix, [entry])
    first = _residual(model, view, prefix + "attention.residual")
    graph.add_edges_from([*((node, first) for node in attended)])
    second = _norm(model, view, prefix + "mlp.norm")
    graph.add_edge(first, second)
    projected = _mlp(graph, model, view, prefix, [second])
    last = _residual(model, view, prefix + "mlp.residual")
    graph.add_edges_from([*((node, last) for node in projected), (first, last)])
    return graph


def _attention(
    graph: nx.DiGraph, model: ModelSpec, view: RankView, prefix: str, before: list[Node]
) -> list[Node]:
    name, h = prefix + "attention.", model.hidden
    queries, keys = view.part(model.query_width), view.part(model.kv_width)
    before = _extend(graph, before, _before_block(view, h, name))
    biased = model.attention_bias
    q = _linear(view, name + "q", view.rows, h, queries, biased, keeps_input=True)
    k = _linear(view, name + "k", view.rows, h, keys, biased, keeps_input=False)
    v = _linear(view, name + "v", view.rows, h, keys, biased, keeps_input=False)
    graph.add_edges_from((b, n) for b in before for n in (q, k, v))
    core = _attention_core(model, view, name + "core")
    for projection, heads in ((q, model.heads), (k, model.kv_heads)):
        last: Node = projection
        if model.positions == "rotary":
            last = _rotary(model, view, projection.name + ".rotary", heads)
            graph.add_edge(projection, last)
        graph.add_edge(last, core)
    graph.add_edge(v, core)
    out = _linear(view, name + "o", view.rows, queries, h, model.output_bias, False, column=False)
    graph.add_edge(core, out)
    return _extend(graph, [out], _after_block(view, h, name))


def _mlp(
    graph: nx.DiGraph, model: ModelSpec, view: RankView, prefix: str, before: list[Node]
) -> list[Node]:
    name, h, f = prefix + "mlp.", model.hidden, view.part(model.ffn)
    before = _extend(graph, before, _before_block(view, h, name))
    inputs = ["gate", "up"] if model.gated else ["up"]
    linears = [
        _linear(view, name + part, view.rows, h, f, model.mlp_bias, keeps_input=index == 0)
        for index, part in enumerate(inputs)
    ]
    graph.add_edges_from((b, n) for b in before for n in linears)
    act = _activation(model, view, name + "activation", f)
    graph.add_edges_from((n, act) for n in linears)
    down = _linear(view, name + "down", view.rows, f, h, model.mlp_bias, True, column=False)
    graph.add_edge(act, down)
    return _extend(graph, [down], _after_block(view, h, name))


def head_graph(model: ModelSpec, view: RankView, holds_embedding: bool) -> nx.DiGraph:
    """Final norm, vocabulary projection and loss.

    holds_embedding: the embedding sits on the same rank, so tied weights are not held twice.
    """
    vocab = view.part(model.vocab)
    linear = _linear(view, "head.projection", view.rows, model.hidden, vocab, False, True)
    if model.tied_embeddings and holds_embedding:
        linear = _without_parameters(linear)
    loss = Operator(
        name="head.loss",
        kind="cross_entropy" if view.tp == 1 else "parallel_cross_entropy",
        dims=_dims(rows=view.rows, vocab=vocab),
        forward_bytes=2 * view.rows * vocab * view.element_bytes,
        backward_bytes=2 * view.rows * vocab * view.element_bytes,
        saved_bytes=view.rows * vocab * max(view.element_bytes, LOSS_BYTES) + 8 * view.rows,
        splits=_splits(vocab="tp", rows="dp"),
    )
    gathered = _before_block(view, model.hidden, "head.")
    shared = [_shared_loss(view, f"head.{part}") for part in ("maximum", "sum", "target")]
    return _chain(
        [_norm(model, view, "head.norm"), *gathered, linear, loss, *(shared if view.tp > 1 else [])]
    )


def _shared_loss(view: RankView, name: str) -> Collective:
    return Collective(name, "all_reduce", "tp", view.rows * LOSS_BYTES, "forward")


def _without_parameters(linear: Operator) -> Operator:
    fields = {name: getattr(linear, name) for name in linear.__dataclass_fields__}
    return Operator(**{**fields, "parameters": 0})


def _linear(
    view: RankView,
    name: str,
    m: int,
    k: int,
    n: int,
    bias: bool,
    keeps_input: bool,
    column: bool = True,
) -> Operator:
    size, flops = view.element_bytes, 2 * m * k * n
    apart = view.tp > 1 and not column  # added once, after the partial sums are reduced
    return Operator(
        name=name,
        kind="linear",
        dims=_dims(m=m, k=k, n=n, bias=int(bias and not apart)),
        forward_flops=flops,
        input_gradient_flops=flops,
        weight_gradient_flops=flops,
        forward_bytes=(m * k + k * n + m * n) * size,
        backward_bytes=(2 * m * k + 4 * k * n + 2 * m * n) * size,
        parameters=k * n + (n if bias else 0),
        saved_bytes=m * k * size if keeps_input else 0,
        splits=(("m", "dp"), ("n" if column else "k", "tp")),
    )


def _norm(model: ModelSpec, view: RankView, name: str) -> Operator:
    rows, h, size = view.outer_rows, model.hidden, view.element_bytes
    vectors = 2 if model.norm == "layernorm" else 1
    fused = view.fused_norms or model.norm == "layernorm"
    kept = size if fused else 2 * max(size, LOSS_BYTES)
    return Operator(
        name=name,
        kind=model.norm,
        dims=_dims(rows=rows, width=h),
        forward_bytes=2 * rows * h * size,
        backward_bytes=3 * rows * h * size,
        parameters=vectors * h,
        replicated=True,
        saved_bytes=kept * rows * h + vectors * rows * LOSS_BYTES,
        splits=_splits(rows="tp"),
    )


def _rotary(model: ModelSpec, view: RankView, name: str, heads: int) -> Operator:
    local = view.part(heads)
    moved = 6 * view.rows * local * model.head_dim * view.element_bytes
    return Operator(
        name=name,
        kind="rotary",
        dims=_dims(rows=view.rows, heads=local, head_dim=model.head_dim),
        forward_bytes=moved,
        backward_bytes=moved,
        splits=_splits(heads="tp", rows="dp"),
    )


def _attention_core(model: ModelSpec, view: RankView, name: str) -> Operator:
    heads, groups, d = view.part(model.heads), view.part(model.kv_heads), model.head_dim
    size, keys = view.element_bytes, min(view.seq, model.sliding_window or view.seq)
    flops = 4 * view.batch * heads * view.seq * keys * d
    moved = view.rows * d * (2 * heads + 2 * groups) * size
    scores = 0 if view.flash else view.batch * heads * view.seq * keys * size
    return Operator(
        name=name,
        kind="attention",
        dims=_dims(batch=view.batch, seq=view.seq, heads=heads, kv_heads=groups, head_dim=d),
        forward_flops=flops,
        input_gradient_flops=flops * 5 // 2 if view.flash else 2 * flops,
        forward_bytes=moved + 4 * scores,
        backward_bytes=2 * moved + 8 * scores,
        saved_bytes=moved + 2 * scores + view.rows * heads * LOSS_BYTES,
        splits=_splits(heads="tp", kv_heads="tp", batch="dp", seq="cp"),
    )


def _activation(model: ModelSpec, view: RankView, name: str, width: int) -> Operator:
    moved, inputs = view.rows * width * view.element_bytes, 2 if model.gated else 1
    return Operator(
        name=name,
        kind=("gated_" if model.gated else "") + model.activation,
        dims=_dims(rows=view.rows, width=width),
        forward_bytes=(5 if model.gated else 2) * moved,
        backward_bytes=(8 if model.gated else 3) * moved,
        saved_bytes=(inputs + (1 if model.gated else 0)) * moved,
        splits=_splits(width="tp", rows="dp"),
    )


def _residual(model: ModelSpec, view: RankView, name: str) -> Operator:
    moved = view.outer_rows * model.hidden * view.element_bytes
    return Operator(
        name=name,
        kind="residual",
        dims=_dims(rows=view.outer_rows, width=model.hidden),
        forward_bytes=3 * moved,
        backward_bytes=3 * moved,
        splits=_splits(rows="tp"),
    )


def _before_block(view: RankView, width: int, name: str) -> list[Node]:
    if view.tp == 1:
        return []
    size = view.rows * width * view.element_bytes
    if view.sequence_parallel:
        return [
            Collective(name + "gather", "all_gather", "tp", size, "forward"),
            Collective(name + "gather.backward", "reduce_scatter", "tp", size, "backward"),
        ]
    return [Collective(name + "enter.backward", "all_reduce", "tp", size, "backward")]


def _after_block(view: RankView, width: int, name: str) -> list[Node]:
    if view.tp == 1:
        return []
    size = view.rows * width * view.element_bytes
    if view.sequence_parallel:
        return [
            Collective(name + "scatter", "reduce_scatter", "tp", size, "forward"),
            Collective(name + "scatter.backward", "all_gather", "tp", size, "backward"),
        ]
    return [Collective(name + "leave", "all_reduce", "tp", size, "forward")]


def _extend(graph: nx.DiGraph, before: list[Node], nodes: Iterable[Node]) -> list[Node]:
    for node in nodes:
        graph.add_edges_from((b, node) for b in before)
        before = [node]
    return before


def _chain(nodes: list[Node]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    nx.add_path(graph, nodes)
    return graph


def _sources(graph: nx.DiGraph) -> list[Node]:
    return [node for node in graph if graph.in_degree(node) == 0]


def _sinks(graph: nx.DiGraph) -> list[Node]:
    return [node for node in graph if graph.out_degree(node) == 0]


def _dims(**sizes: int) -> Dims:
    return tuple(sorted(sizes.items()))


def _splits(**axes: Axis) -> tuple[tuple[str, Axis], ...]:
    return tuple(axes.items())


def operators(graph: nx.DiGraph) -> list[Operator]:
    """The operators of a graph, in topological order."""
    return [node for node in nx.topological_sort(graph) if isinstance(node, Operator)]


def collectives(graph: nx.DiGraph, phase: Phase | None = None) -> list[Collective]:
    """The collectives of a graph, of one phase or of both."""
    found = [node for node in nx.topological_sort(graph) if isinstance(node, Collective)]
    return [node for node in found if phase is None or node.phase == phase]
