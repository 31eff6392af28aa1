"""Attention: projections, positions, the core, and what context parallelism adds.

On rows = b*s/c tokens (h hidden, a heads, g kv heads, d head_dim, v value_dim, all heads /t):

    q,k,v (rows,h)x(h, ad|gd|gv) ─ [norm of each head] ─ [rotary] ─ core ─ o (rows,av)x(av,h)

The core multiplies every query with every key it may be given: 2*b*a*s_q*s_k*(d + v) FLOPs
forward, s_k = min(window, keys). A kernel that never stores its scores computes them again in
the backward: 2*b*a*s_q*s_k*(3d + 2v), else (2d + 2v) (Dao et al. 2022). Skipping what the mask
hides leaves the share

    sum_i min(window, cached + i) / (s_q * s_k),  i = 1 .. s_q

It keeps q, k, v (in a ring the rank's own), its output and the softmax statistics, and where it
reads an encoder's output the rows of that which it gathers over tp. Without flash it keeps the
softmax (once: its backward and the second product read the same) instead of the statistics, and
keys and values repeated for all heads; torch's composite attention (view.fused_norms is false)
computes in fp32 and keeps copies of q, k and v in it. torch's flash kernel of CPUs has no gradient
of a bias, so relative positions take the composite attention there.
Selective recomputation keeps q, k, v and the output. A runtime that copies keys and values out of
the one tensor of all three products (view.copies_keys_values) keeps k and v twice: q is a view of
that tensor.

Context parallelism (view.cp_style) on c ranks, K = bytes of a rank's keys and values:

    ring        forward: c-1 steps pass keys and values (K each); backward: c-1 steps pass them
                again and c steps pass their gradients, accumulated in fp32
    all_to_all  queries, keys, values and output, once forward and once backward; the output is kept
                on both sides
    all_gather  keys and values forward (c*K), reduce-scatter of their gradients backward
"""

from dataclasses import replace

from planner.graph.operator import Collective, Node, Operator, Split
from planner.graph.parts import elements, exchange
from planner.graph.parts.assembly import Assembly, Flow
from planner.graph.view import RankView, encoder_view
from planner.spec.layer import Attention

CORE_KINDS = ("attention", "general_attention")
"""Kinds of attention cores: causal over its own tokens, and every other."""


def self_attention(assembly: Assembly, attention: Attention, name: str, before: Flow) -> Flow:
    """Attention of a stream to itself, from the gathered tokens to the reduced sums."""
    model, view = assembly.model, assembly.view
    before = assembly.add(before, *exchange.enter(view, model.hidden, name))
    q, k, v = _projections(assembly, attention, name, before, before, view.rows)
    q = _positioned(assembly, attention, name + "q", q, attention.heads)
    k = _positioned(assembly, attention, name + "k", k, attention.kv_heads)
    flow = core(assembly, attention, name, [*q, *k, *v])
    return output(assembly, attention, name, flow)


def cross_attention(assembly: Assembly, attention: Attention, name: str, before: Flow) -> Flow:
    """Attention of a decoder's stream to the encoder's output (the memory)."""
    model, view = assembly.model, assembly.view
    source = encoder_view(model, view)
    before = assembly.add(before, *exchange.enter(view, model.hidden, name))
    if view.task == "decode":  # keys and values of the memory are in the cache since the prompt
        q = _query(assembly, attention, name, before)
        flow = cross_core(assembly, attention, name, q)
        return output(assembly, attention, name, flow)
    gather = assembly.kept(exchange.enter(view, model.hidden, name + "memory.", source.rows))
    memory = assembly.add([], *gather)
    gathered = view.tp > 1 and view.sequence_parallel
    q, k, v = _projections(assembly, attention, name, before, memory, source.rows, gathered)
    assembly.reads_memory(gather[:1] or [*k, *v])
    return output(assembly, attention, name, cross_core(assembly, attention, name, [*q, *k, *v]))


def _query(assembly: Assembly, attention: Attention, name: str, before: Flow) -> Flow:
    model, view = assembly.model, assembly.view
    width, bias = view.part(attention.query_width), attention.q_bias
    q = elements.linear(
        view,
        name + "q",
        view.rows,
        model.hidden,
        width,
        bias=bias,
        keeps_input=True,
        column="heads",
    )
    return assembly.add(before, q)


def _projections(
    assembly: Assembly,
    attention: Attention,
    name: str,
    stream: Flow,
    memory: Flow,
    rows: int,
    keeps_memory: bool = False,
) -> tuple[Flow, Flow, Flow]:
    """keeps_memory: what keys and values are made of is a copy of their own, gathered here."""
    model, view = assembly.model, assembly.view
    q = _query(assembly, attention, name, stream)
    widths = (("k", attention.key_width), ("v", attention.value_width))
    biases = {"k": attention.k_bias, "v": attention.v_bias}
    k, v = (
        assembly.add(
            memory,
            elements.linear(
                view,
                name + part,
                rows,
                model.hidden,
                view.part(width),
                bias=biases[part],
                keeps_input=keeps_memory and part == "k",
                column="kv_heads",
            ),
        )
        for part, width in widths
    )
    return q, k, v


def _positioned(
    assembly: Assembly, attention: Attention, name: str, flow: Flow, heads: int
) -> Flow:
    model, view = assembly.model, assembly.view
    local = view.part(heads)
    if attention.qk_norm:
        rows, width = view.rows * local, attention.head_dim
        flow = assembly.add(
            flow,
            elements.norm(model, view, name + ".norm", rows=rows, width=width, kind="rmsnorm"),
        )
    if attention.rotary_dim:
        rotary = elements.rotary(view, name + ".rotary", local, attention.rotary_dim)
        flow = assembly.add(flow, rotary)
    return flow


def output(assembly: Assembly, attention: Attention, name: str, flow: Flow) -> Flow:
    """The output projection and the reduction of its partial sums."""
    model, view = assembly.model, assembly.view
    out = elements.linear(
        view,
        name + "o",
        view.rows,
        view.part(attention.output_width),
        model.hidden,
        bias=attention.o_bias,
        keeps_input=view.quantized_inputs,
        row="heads",
    )
    return assembly.add(flow, out, *exchange.leave(view, model.hidden, name))


def core(assembly: Assembly, attention: Attention, name: str, flow: Flow) -> Flow:
    """The core of self-attention with the collectives of context parallelism around it."""
    view = assembly.view
    heads, groups = view.part(attention.heads), view.part(attention.kv_heads)
    queries, keys = view.seq // view.cp, view.keys
    if view.cp > 1 and view.cp_style == "all_to_all":
        heads, groups, queries = heads // view.cp, groups // view.cp, view.seq
    made = core_operator(view, attention, name + "core", queries, keys, heads, groups)
    made = replace(made, cache_bytes=cache_bytes(view, attention, groups))
    if queries > view.seq // view.cp and not view.quantized_inputs:
        # the kernel keeps its output, and the projection what of it came back
        again = view.batch * queries * heads * attention.value_head * view.element_bytes
        kept, less = made.saved_bytes + again, made.selective_bytes + again
        made = replace(made, saved_bytes=kept, selective_bytes=less)
    own_keys = attention.heads == attention.kv_heads and attention.latent is None
    if view.copies_keys_values and own_keys:
        made = replace(made, saved_bytes=made.saved_bytes + _copied_bytes(view, attention))
    ahead, behind = _context_exchange(view, attention, name)
    flow = assembly.add(flow, *ahead, made)
    if attention.relative_buckets:
        assembly.reads_bias(flow)
    return assembly.add(flow, *behind)


def _copied_bytes(view: RankView, attention: Attention) -> int:
    """Keys and values on this rank."""
    width = view.part(attention.key_width) + view.part(attention.value_width)
    return view.rows * width * view.element_bytes


def cross_core(assembly: Assembly, attention: Attention, name: str, flow: Flow) -> Flow:
    """The core of cross-attention: every query sees the whole memory."""
    view = assembly.view
    heads, groups = view.part(attention.heads), view.part(attention.kv_heads)
    keys = encoder_view(assembly.model, view).seq
    made = core_operator(view, attention, name + "core", view.seq, keys, heads, groups)
    held = view.batch * keys * groups * (attention.head_dim + attention.value_head)
    cached = 0 if view.task == "train" else held * view.element_bytes
    return assembly.add(flow, replace(made, cache_bytes=cached))


def core_operator(
    view: RankView,
    attention: Attention,
    name: str,
    queries: int,
    keys: int,
    heads: int,
    groups: int,
) -> Operator:
    """Scores, softmax and weighting of `queries` per sequence over `keys`, on this rank."""
    d, v, size = attention.head_dim, attention.value_head, view.element_bytes
    seen = min(keys, attention.window or keys)
    flash = not stores_scores(view, attention)
    products = 2 * view.batch * heads * queries * seen
    rows, read = view.batch * queries, view.batch * min(keys, queries + seen)
    moved = (rows * heads * (d + v) + read * groups * (d + v)) * size
    scores = 0 if flash else view.batch * heads * queries * seen * size
    bias = heads * queries * keys * size if attention.relative_buckets else 0
    ring = view.cp > 1 and view.cp_style == "ring"
    own = view.batch * keys // view.cp if ring else read
    held = (rows * heads + own * groups) * (d + v) * size
    kept = held + rows * heads * max(size, elements.FP32_BYTES)
    if not flash:
        wide = size if view.fused_norms else max(size, elements.FP32_BYTES)
        inputs = rows * heads * d + own * heads * (d + v)
        kept = (inputs + scores // size) * wide + rows * heads * v * size
    plain = attention.causal and seen == keys == queries and d == v and not attention.sinks
    dims = {"batch": view.batch, "seq": queries, "heads": heads, "kv_heads": groups, "head_dim": d}
    more = {"keys": keys, "value_dim": v, "causal": int(attention.causal), "window": seen}
    return Operator(
        name=name,
        kind="attention" if plain else "general_attention",
        dims=elements.dims_of(**(dims if plain else dims | more)),
        forward_flops=products * (d + v),
        input_gradient_flops=products * (3 * d + 2 * v if flash else 2 * d + 2 * v),
        kernel_share=kernel_share(attention, view.seq, keys),
        forward_bytes=moved + 4 * scores + bias,
        backward_bytes=2 * moved + 8 * scores + 2 * bias,
        parameters=heads if attention.sinks else 0,
        saved_bytes=kept,
        selective_bytes=kept - held,
        splits=(
            Split("heads", "heads", "tp"),
            Split("kv_heads", "kv_heads", "tp"),
            Split("batch", "batch", "dp"),
            Split("seq", "sequence", "cp"),
        ),
    )


def stores_scores(view: RankView, attention: Attention) -> bool:
    """Whether a core keeps its scores: no flash, or torch's on a CPU, where a bias is learned."""
    return not view.flash or bool(attention.relative_buckets and not view.fused_norms)


def kernel_share(attention: Attention, queries: int, keys: int) -> float:
    """The part of the counted products that the mask leaves (see the top of the file)."""
    if not attention.causal:
        return 1.0
    window = min(keys, attention.window or keys)
    cached = keys - queries
    growing = max(0, min(queries, window - cached))
    pairs = growing * cached + growing * (growing + 1) // 2 + (queries - growing) * window
    return pairs / (queries * window)


def cache_bytes(view: RankView, attention: Attention, groups: int) -> int:
    """Bytes of keys and values (of `groups` heads here) held after this pass, 0 in training."""
    if view.task == "train":
        return 0
    held = min(view.keys, attention.window or view.keys)
    width = groups * (attention.head_dim + attention.value_head)
    if attention.latent is not None:
        width = attention.latent.kv_rank + attention.rotary_dim
    return view.batch * held * width * view.element_bytes


def _context_exchange(
    view: RankView, attention: Attention, name: str
) -> tuple[list[Node], list[Node]]:
    if view.cp == 1:
        return [], []
    size, c = view.rows * view.element_bytes, view.cp
    q = size * view.part(attention.query_width)
    keys = size * view.part(attention.key_width)
    values = size * view.part(attention.value_width)
    out = size * view.part(attention.output_width)
    if view.cp_style == "all_to_all":
        parts = (("q", q), ("k", keys), ("v", values))
        ahead = [n for part, moved in parts for n in _both_ways(f"{name}{part}.exchange", moved)]
        return ahead, _both_ways(f"{name}output.exchange", out)
    if view.cp_style == "all_gather":
        both = (("k", c * keys), ("v", c * values))
        return [n for part, moved in both for n in _gathered(name + part, moved)], []
    wide = (keys + values) * max(1, elements.FP32_BYTES // view.element_bytes)
    return [
        Collective(name + "ring", "send_recv", "cp", keys + values, "forward", c - 1),
        Collective(name + "ring.again", "send_recv", "cp", keys + values, "backward", c - 1),
        Collective(name + "ring.gradients", "send_recv", "cp", wide, "backward", c),
    ], []


def _gathered(name: str, size: int) -> list[Node]:
    return [
        Collective(name + ".gather", "all_gather", "cp", size, "forward"),
        Collective(name + ".scatter", "reduce_scatter", "cp", size, "backward"),
    ]


def _both_ways(name: str, size: int) -> list[Node]:
    return [
        Collective(name, "all_to_all", "cp", size, "forward"),
        Collective(name + ".backward", "all_to_all", "cp", size, "backward"),
    ]
