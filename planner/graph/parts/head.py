"""Head: what stands between the last layer and the loss.

    [norm] [─ projection to another width] [─ dense, activation, norm] ─ classes ─ loss
    [norm] [─ projection to another width] ─ classes of every token ─ loss
    [norm] ─ one token of each sequence [─ dense, tanh] ─ classes ─ loss

A vocabulary is divided over tp (with three all-reduces of one number per token in the loss),
labels are not; a divided loss keeps its exponentials, their sum, the targets and which of them
are elsewhere. Predicting a further token in training (mtp_layers, DeepSeek-V3 2024) repeats: two
norms, (rows,2h)x(2h,h), a layer like the last one, a norm, and the same projection and loss.
Serving computes the classes of the last token of each sequence only.
"""

from dataclasses import replace

from planner.graph.operator import Collective, Node, Operator, Split
from planner.graph.parts import elements, exchange
from planner.graph.parts.assembly import Assembly, Flow
from planner.graph.parts.layer import layer
from planner.graph.view import RankView
from planner.spec.layer import MLP

DENSE = MLP(ffn=1, gated=False, activation="gelu")
"""The activation of a head's dense layer; its width is given where it is used."""


def head(assembly: Assembly, holds_embedding: bool, prefix: str, stream: Flow) -> Flow:
    """Everything behind the last layer. holds_embedding: the token table is on the same rank."""
    model, view, spec = assembly.model, assembly.view, assembly.model.head
    flow = stream
    if model.main.final_norm:
        flow = assembly.add(flow, elements.norm(model, view, prefix + "norm"))
    if spec.width is not None:
        flow = assembly.add(flow, _narrowed(assembly, prefix, spec.width))
    if spec.kind == "none" and not spec.pooler:
        return flow
    if spec.pooler or (spec.kind == "sequence_classification" and _has_class_token(assembly)):
        return _one_token(assembly, prefix, flow)
    if spec.kind != "language_model":
        return _labels(assembly, prefix, flow, view.outer_rows)
    flow = _logits(assembly, holds_embedding, prefix, flow)
    if view.task == "train":
        for index in range(spec.mtp_layers):
            stream = _next_token(assembly, f"{prefix}mtp{index}.", stream)
    return flow


def _narrowed(assembly: Assembly, prefix: str, width: int) -> Operator:
    view, hidden = assembly.view, assembly.model.hidden
    return elements.linear(
        view, prefix + "project", view.outer_rows, hidden, width, keeps_input=True, quantizes=False
    )


def _has_class_token(assembly: Assembly) -> bool:
    return assembly.model.main.embedding.class_token


def _one_token(assembly: Assembly, prefix: str, flow: Flow) -> Flow:
    model, view, h = assembly.model, assembly.view, assembly.model.hidden
    if model.head.pooler:
        dense = elements.linear(
            view, prefix + "pooler", view.batch, h, h, bias=True, keeps_input=True, quantizes=False
        )
        tanh = elements.elementwise(view, prefix + "tanh", "tanh", view.batch, h, saved=1)
        flow = assembly.add(flow, dense, tanh)
    if model.head.kind == "none":
        return flow
    return _labels(assembly, prefix, flow, view.batch)


def _labels(assembly: Assembly, prefix: str, flow: Flow, rows: int) -> Flow:
    model, view, spec = assembly.model, assembly.view, assembly.model.head
    made = elements.linear(
        view,
        prefix + "projection",
        rows,
        spec.width or model.hidden,
        spec.classes,
        bias=spec.bias,
        keeps_input=True,
        quantizes=False,
    )
    return assembly.add(flow, made, *_loss(view, prefix, rows, spec.classes, "classes"))


def _logits(assembly: Assembly, holds_embedding: bool, prefix: str, flow: Flow) -> Flow:
    model, view, spec = assembly.model, assembly.view, assembly.model.head
    width = spec.width or model.hidden
    if spec.transform:
        flow = _transform(assembly, prefix, flow)
    rows = view.rows if view.task == "train" else view.batch
    vocab = view.part(spec.classes)
    made = elements.linear(
        view,
        prefix + "projection",
        rows,
        width,
        vocab,
        bias=spec.bias,
        keeps_input=True,
        quantizes=False,
        column="vocabulary",
    )
    if model.tied_embeddings and holds_embedding:
        made = replace(made, parameters=vocab if spec.bias else 0)
    flow = assembly.add(flow, *exchange.enter(view, width, prefix), made)
    if view.task != "train":
        return flow
    return assembly.add(flow, *_loss(view, prefix, rows, vocab, "vocabulary"))


def _transform(assembly: Assembly, prefix: str, flow: Flow) -> Flow:
    model, view, h = assembly.model, assembly.view, assembly.model.hidden
    rows, name = view.outer_rows, prefix + "transform"
    return assembly.add(
        flow,
        elements.linear(view, name, rows, h, h, bias=True, keeps_input=True, quantizes=False),
        elements.activation(view, name + ".activation", DENSE, rows, h),
        elements.norm(model, view, name + ".norm"),
    )


def _loss(view: RankView, prefix: str, rows: int, classes: int, meaning: str) -> list[Node]:
    if view.task != "train":
        return []
    parallel = view.tp > 1 and meaning == "vocabulary"
    wide = max(view.element_bytes, elements.FP32_BYTES)
    moved = 2 * rows * classes * view.element_bytes
    made = Operator(
        name=prefix + "loss",
        kind="parallel_cross_entropy" if parallel else "cross_entropy",
        dims=elements.dims_of(rows=rows, vocab=classes),
        forward_bytes=moved,
        backward_bytes=moved,
        saved_bytes=rows * (classes * wide + 8 + (wide + 1 if parallel else 0)),
        splits=(
            *((Split("vocab", "vocabulary", "tp"),) if meaning == "vocabulary" else ()),
            elements.rows_split(),
        ),
    )
    shared = [
        Collective(prefix + part, "all_reduce", "tp", rows * wide, "forward")
        for part in ("maximum", "sum", "target")
    ]
    return [made, *(shared if parallel else [])]


def _next_token(assembly: Assembly, prefix: str, stream: Flow) -> Flow:
    """One layer that predicts a further token. Returns the stream behind its layer."""
    model, view, h = assembly.model, assembly.view, assembly.model.hidden
    rows = view.outer_rows
    token = elements.elementwise(view, prefix + "tokens", "embedding_again", rows, h)
    token_norm = elements.norm(model, view, prefix + "token_norm")
    hidden_norm = elements.norm(model, view, prefix + "hidden_norm", keeps_input=False)
    ends = [*assembly.add(stream, hidden_norm), *assembly.add([], token, token_norm)]
    merge = elements.linear(
        view, prefix + "merge", rows, 2 * h, h, keeps_input=True, quantizes=False
    )
    kind = model.main.kinds[model.main.order[-1]]
    inner = layer(assembly, kind, prefix, assembly.add(ends, merge))
    norm = elements.norm(model, view, prefix + "norm")
    vocab = view.part(model.head.classes)
    project = elements.linear(
        view,
        prefix + "projection",
        view.rows,
        h,
        vocab,
        keeps_input=True,
        quantizes=False,
        column="vocabulary",
    )
    assembly.add(
        inner,
        norm,
        *exchange.enter(view, h, prefix + "head."),
        replace(project, parameters=0),
        *_loss(view, prefix, view.rows, vocab, "vocabulary"),
    )
    return inner
