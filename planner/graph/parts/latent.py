"""Latent attention (DeepSeek-V2 2024, DeepSeek-V3 2024): projections through low ranks.

r_q, r_kv ranks, p = rotary_dim, n = d - p the plain part of a head, v value_dim:

    x ─ q.down (h, r_q) ─ norm ─ [gather] ─ q.up (r_q, a*d) ─ rotary on p ──────────────┐
      ─ kv.down (h, r_kv + p) ─ norm of r_kv ─ [gather] ─ kv.up (r_kv, a*(n + v)) ──────┼─ core ─ o
                              ─ rotary on the one shared key of p ──────────────────────┘

The down projections are the same on every tp rank and work on its own tokens. A cache holds
r_kv + p numbers per token, the same on every tp rank. Decoding absorbs kv.up into query and
output: per head q (n) x (n, r_kv), a core over keys r_kv + p and values r_kv that all heads
share, and output (r_kv) x (r_kv, v).
"""

from dataclasses import replace

from planner.graph.operator import Operator, Split
from planner.graph.parts import attention as plain
from planner.graph.parts import elements, exchange
from planner.graph.parts.assembly import Assembly, Flow
from planner.graph.view import RankView
from planner.spec.layer import Attention, Latent


def latent_attention(assembly: Assembly, attention: Attention, name: str, before: Flow) -> Flow:
    """Attention through low ranks, from the stream to the reduced sums."""
    latent = attention.latent
    assert latent is not None
    q = _queries(assembly, attention, latent, name + "q", before)
    shared = _shared(assembly, attention, latent, name + "kv", before)
    if assembly.view.task == "decode":
        flow = _absorbed(assembly, attention, latent, name, [*q, *shared])
    else:
        kv = assembly.add(shared, _key_value_up(assembly.view, attention, latent, name + "kv.up"))
        flow = plain.core(assembly, attention, name, [*q, *kv])
    return plain.output(assembly, attention, name, flow)


def _queries(
    assembly: Assembly, attention: Attention, latent: Latent, name: str, before: Flow
) -> Flow:
    model, view = assembly.model, assembly.view
    flow, inner, bias = before, model.hidden, attention.q_bias
    if latent.query_rank is not None:
        inner, bias = latent.query_rank, False
        down = _down(assembly, name, inner, attention.q_bias, keeps_input=True)
        flow = assembly.add(flow, down, _rank_norm(assembly, name, inner))
    width, heads = view.part(attention.query_width), view.part(attention.heads)
    up = elements.linear(
        view, name + ".up", view.rows, inner, width, bias=bias, keeps_input=True, column="heads"
    )
    rotary = elements.rotary(view, name + ".rotary", heads, attention.rotary_dim)
    return assembly.add(flow, *exchange.enter(view, inner, name + "."), up, rotary)


def _shared(
    assembly: Assembly, attention: Attention, latent: Latent, name: str, before: Flow
) -> Flow:
    """What all heads share: the compressed keys and values, and one rotated key."""
    view, width = assembly.view, latent.kv_rank + attention.rotary_dim
    own_input = latent.query_rank is None and view.outer_rows != view.rows
    down = _down(assembly, name, width, attention.k_bias, keeps_input=own_input)
    norm = _rank_norm(assembly, name, latent.kv_rank)
    rotary = elements.rotary(view, name + ".rotary", 1, attention.rotary_dim)
    return assembly.add(before, down, norm, *exchange.enter(view, width, name + "."), rotary)


def _down(assembly: Assembly, name: str, width: int, bias: bool, keeps_input: bool) -> Operator:
    view, hidden = assembly.view, assembly.model.hidden
    rows = view.outer_rows
    return elements.linear(
        view, name + ".down", rows, hidden, width, bias=bias, keeps_input=keeps_input
    )


def _rank_norm(assembly: Assembly, name: str, width: int) -> Operator:
    return elements.norm(assembly.model, assembly.view, name + ".norm", width=width, kind="rmsnorm")


def _key_value_up(view: RankView, attention: Attention, latent: Latent, name: str) -> Operator:
    width = attention.heads * (_plain_dim(attention) + attention.value_head)
    return elements.linear(
        view, name, view.rows, latent.kv_rank, view.part(width), keeps_input=True, column="heads"
    )


def _plain_dim(attention: Attention) -> int:
    return attention.head_dim - attention.rotary_dim


def _absorbed(
    assembly: Assembly, attention: Attention, latent: Latent, name: str, flow: Flow
) -> Flow:
    view, rank, heads = assembly.view, latent.kv_rank, assembly.view.part(attention.heads)
    inner = attention.replace(
        kv_heads=attention.heads, head_dim=rank + attention.rotary_dim, value_dim=rank
    )
    made = plain.core_operator(view, inner, name + "core", view.seq, view.keys, heads, 1)
    return assembly.add(
        flow,
        _per_head(view, name + "q.absorb", heads, _plain_dim(attention), rank),
        replace(made, cache_bytes=plain.cache_bytes(view, attention, heads)),
        _per_head(view, name + "o.absorb", heads, rank, attention.value_head),
    )


def _per_head(view: RankView, name: str, heads: int, k: int, n: int) -> Operator:
    """A product (rows, k)x(k, n) per head; decoding only, so without a backward."""
    rows, weights, size = view.rows, heads * k * n, view.element_bytes
    return Operator(
        name=name,
        kind="grouped_linear",
        dims=elements.dims_of(m=rows * heads, k=k, n=n, groups=heads),
        forward_flops=2 * rows * weights,
        forward_bytes=(rows * heads * (k + n) + weights) * size,
        parameters=weights,
        splits=(Split("groups", "heads", "tp"),),
    )
