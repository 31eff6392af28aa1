"""Parameters of a ModelSpec, term by term, without the planner's graph.

With h the width of the stream, a norm has 2h (layer norm) or h (RMS norm) factors, a linear map
rows * columns and perhaps columns more.
"""

from planner.spec.layer import MLP, Attention, Experts, Latent, LayerSpec
from planner.spec.model import Embedding, Head, ModelSpec, Stack


def parameters(model: ModelSpec) -> int:
    return sum(_stack(model, stack) for stack in model.stacks) + _head(model, model.head)


def _norm(model: ModelSpec) -> int:
    return model.norm_affine * model.hidden * (2 if model.norm == "layernorm" else 1)


def _stack(model: ModelSpec, stack: Stack) -> int:
    layers = sum(_layer(model, stack.kinds[kind]) for kind in stack.order)
    tables = _embedding(model, stack.embedding) + _relative(stack)
    return tables + layers + stack.final_norm * _norm(model)


def _relative(stack: Stack) -> int:
    """The table of the first kind that has one, of all layers together."""
    tables = (k.attention.relative_buckets * k.attention.heads for k in stack.kinds)
    return next(filter(None, tables), 0)


def _embedding(model: ModelSpec, spec: Embedding) -> int:
    h, width = model.hidden, spec.width or model.hidden
    table = 0 if spec.shared_table else (spec.vocab or 0) * width
    projection = h * spec.width if spec.width else 0
    convolutions = sum(c.channels * c.kernel * h + h for c in spec.convolutions)
    rows = spec.position_rows + spec.token_types + spec.class_token
    return table + projection + convolutions + rows * h + spec.norm * _norm(model)


def _layer(model: ModelSpec, kind: LayerSpec) -> int:
    blocks = 2 + (kind.cross_attention is not None)
    norms = blocks * _norm(model) * (2 if kind.placement == "sandwich" else 1)
    both = filter(None, (kind.attention, kind.cross_attention))
    attention = sum(_attention(model, each) for each in both)
    return norms + attention + _feed_forward(model.hidden, kind.feed_forward)


def _attention(model: ModelSpec, a: Attention) -> int:
    h, affine = model.hidden, model.norm_affine
    output = a.output_width * h + a.o_bias * h + a.sinks * a.heads
    if a.latent:
        return output + _latent(model, a, a.latent)
    q = h * a.query_width + a.q_bias * a.query_width
    k = h * a.key_width + a.k_bias * a.key_width
    v = h * a.value_width + a.v_bias * a.value_width
    return output + q + k + v + a.qk_norm * affine * 2 * a.head_dim


def _latent(model: ModelSpec, a: Attention, low: Latent) -> int:
    h, affine = model.hidden, model.norm_affine
    rank, down = low.query_rank, low.kv_rank + a.rotary_dim
    q = (
        (h + a.q_bias) * a.query_width
        if rank is None
        else rank * (h + a.q_bias + affine + a.query_width)
    )
    kv = h * down + a.k_bias * down + affine * low.kv_rank
    return q + kv + low.kv_rank * a.heads * (a.head_dim - a.rotary_dim + a.value_head)


def _feed_forward(h: int, feed: MLP | Experts) -> int:
    if isinstance(feed, MLP):
        ups = 2 if feed.gated else 1
        return (ups + 1) * h * feed.ffn + feed.bias * (ups * feed.ffn + h)
    shared = _feed_forward(h, feed.shared) if feed.shared else 0
    router = h * (feed.experts + feed.shared_gate) + feed.router_bias * feed.experts
    return router + feed.experts * _feed_forward(h, feed.expert) + shared


def _head(model: ModelSpec, head: Head) -> int:
    h, width = model.hidden, head.width or model.hidden
    matrix = 0 if model.tied_embeddings else width * head.classes
    dense = (head.transform + head.pooler) * (h * h + h) + head.transform * _norm(model)
    projection = h * head.width if head.width else 0
    further = head.mtp_layers * _further(model) if head.kind == "language_model" else 0
    return matrix + head.bias * head.classes + dense + projection + further


def _further(model: ModelSpec) -> int:
    """A layer like the last one that predicts a further token, its matrix and its norms."""
    last = model.main.kinds[model.main.order[-1]]
    return _layer(model, last) + 2 * model.hidden**2 + 3 * _norm(model)
