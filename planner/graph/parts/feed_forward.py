"""Feed-forward parts: an MLP, or experts behind a router.

    MLP       [gather] ─ up (and gate) (rows,h)x(h,f) ─ activation ─ down (rows,f)x(f,h) ─ [scatter]

    experts   router (rows,h)x(h,E) ─ top k ─ permute ─ <all-to-all> ─ <gather> ─ {pad} ─ up and
              gate ─ activation ─ down ─ {bias} ─ {unpad} ─ <scatter> ─ <all-to-all> ─ combine
              beside a shared MLP, scaled by a gate of one number per token

The brackets exist under tensor parallelism, the angles under expert parallelism. A rank routes
its own b*s/c/t tokens; under balanced routing it receives as many as it sends: rows * k copies
of h numbers to the ranks of ep, forward and backward. Expert tensor parallelism gathers them
over its x ranks, which hold f/x columns each. Kept for the backward beside what elements.py
says: the probabilities of all experts in fp32 (router) and what each expert returned (combine).

The braces depend on the runtime. Products in fp8 or fp4 want a multiple of 16 or 32 rows, and
routing gives any number: every expert's rows are copied to where they begin at a multiple, and
back (view.pads_experts). A bias behind an expert that its product does not add (not
view.fused_expert_bias) is cat(t + b p) in 16 bits, p in fp32: per element of e bytes of a copy,

    forward   b p 4;  t + b p e + 4 + 4;  cat 4 + 4;  to e bytes 4 + e                  2e + 24
    backward  to fp32 e + 4;  t 4 + e, cat 2e;  b and p 4 + 4 + 4 each                  4e + 32
"""

from planner.graph.operator import Collective, Node, Operator, Split
from planner.graph.parts import elements, exchange
from planner.graph.parts.assembly import Assembly, Flow
from planner.graph.view import RankView
from planner.spec.layer import MLP, Experts


def feed_forward(assembly: Assembly, part: MLP | Experts, name: str, before: Flow) -> Flow:
    """The feed-forward part of a layer; the returned flows are summed by what follows."""
    if isinstance(part, MLP):
        return _mlp(assembly, part, name, before, keeps_input=True)
    return _experts(assembly, part, name, before)


def _mlp(assembly: Assembly, mlp: MLP, name: str, before: Flow, keeps_input: bool) -> Flow:
    model, view = assembly.model, assembly.view
    h, f, rows = model.hidden, view.part(mlp.ffn), view.rows
    before = assembly.add(before, *exchange.enter(view, h, name))
    keeps_input = keeps_input or view.outer_rows != rows
    parts = ["gate", "up"] if mlp.gated else ["up"]
    inner: list[Node] = []
    for part in parts:
        first = keeps_input and part == parts[0]
        made = elements.linear(
            view, name + part, rows, h, f, bias=mlp.bias, keeps_input=first, column="ffn"
        )
        inner += assembly.add(before, made)
    act = elements.activation(view, name + "activation", mlp, rows, f)
    down = elements.linear(
        view, name + "down", rows, f, h, bias=mlp.bias, keeps_input=True, row="ffn"
    )
    return assembly.add(inner, act, down, *exchange.leave(view, h, name))


def _experts(assembly: Assembly, part: Experts, name: str, before: Flow) -> Flow:
    model, view = assembly.model, assembly.view
    tokens, h, size = view.outer_rows, model.hidden, view.element_bytes
    copies = tokens * part.per_token
    router = elements.linear(
        view,
        name + "router",
        tokens,
        h,
        part.experts,
        bias=part.router_bias,
        keeps_input=True,
        quantizes=False,
    )
    flow = assembly.add(before, router, _choice(view, part, name + "choice"))
    permute = elements.elementwise(view, name + "permute", "permute", copies, h)
    dispatch, collect = _expert_exchange(view, copies * h * size, part.per_token, name)
    inner = assembly.add([*before, *flow], permute, *dispatch, *_padded(view, part, h, name, "pad"))
    ends = _grouped_mlp(assembly, part, name, inner)
    behind = [*_biased(view, part, h, name), *_padded(view, part, h, name, "unpad")]
    back = assembly.add(ends, *behind, *collect)
    combine = elements.elementwise(view, name + "combine", "combine", copies, h, saved=1)
    ends = assembly.add([*back, *flow], combine)
    return [*ends, *_shared(assembly, part, name + "shared.", before)]


def _padded(view: RankView, part: Experts, width: int, name: str, kind: str) -> list[Operator]:
    """The copy of every expert's rows to where they begin at a multiple, or back."""
    if not view.pads_experts:
        return []
    rows = view.outer_rows * part.per_token * view.etp
    return [elements.elementwise(view, f"{name}experts.{kind}", kind, rows, width)]


def _biased(view: RankView, part: Experts, width: int, name: str) -> list[Operator]:
    """The bias behind every expert, times the probability of its copy, by operations of their own
    (see the top of the file for what they move)."""
    if view.fused_expert_bias or not part.expert.bias:
        return []
    rows = view.outer_rows * part.per_token * view.etp
    size, wide = view.element_bytes, max(view.element_bytes, elements.FP32_BYTES)
    return [
        Operator(
            name=name + "experts.bias",
            kind="expert_bias",
            dims=elements.dims_of(rows=rows, width=width),
            forward_bytes=rows * width * (2 * size + 6 * wide),
            backward_bytes=rows * width * (4 * size + 8 * wide),
            splits=(elements.rows_split(),),
        )
    ]


def _choice(view: RankView, part: Experts, name: str) -> Operator:
    tokens, wide = view.outer_rows, elements.FP32_BYTES
    moved = tokens * part.experts * (view.element_bytes + wide)
    return Operator(
        name=name,
        kind="router",
        dims=elements.dims_of(rows=tokens, experts=part.experts, per_token=part.per_token),
        forward_bytes=moved,
        backward_bytes=moved,
        saved_bytes=tokens * part.experts * wide + tokens * part.per_token * (wide + 8),
        splits=(elements.rows_split(),),
    )


def _grouped_mlp(assembly: Assembly, part: Experts, name: str, before: Flow) -> Flow:
    view, mlp, h = assembly.view, part.expert, assembly.model.hidden
    rows = view.outer_rows * part.per_token * view.etp
    f, local = mlp.ffn // view.etp, -(-part.experts // view.ep)
    parts = ["gate", "up"] if mlp.gated else ["up"]
    inner: list[Node] = []
    for each in parts:
        keeps = each == parts[0]
        made = _grouped(view, f"{name}experts.{each}", rows, h, f, local, mlp.bias, keeps, "n")
        inner += assembly.add(before, made)
    act = elements.activation(view, name + "experts.activation", mlp, rows, f)
    down = _grouped(view, name + "experts.down", rows, f, h, local, mlp.bias, True, "k")
    return assembly.add(inner, act, down)


def _grouped(
    view: RankView,
    name: str,
    m: int,
    k: int,
    n: int,
    groups: int,
    bias: bool,
    keeps_input: bool,
    ffn: str,
) -> Operator:
    """Products of `groups` experts that share m tokens, (m_i, k)x(k, n) each."""
    size, flops, weights = view.element_bytes, 2 * m * k * n, groups * k * n
    return Operator(
        name=name,
        kind="grouped_linear",
        dims=elements.dims_of(m=m, k=k, n=n, groups=groups),
        forward_flops=flops,
        input_gradient_flops=flops,
        weight_gradient_flops=flops,
        forward_bytes=(m * k + weights + m * n) * size,
        backward_bytes=(2 * m * k + 4 * weights + 2 * m * n) * size,
        parameters=weights + (groups * n if bias else 0),
        expert=True,
        saved_bytes=m * k * elements.kept_bytes(view) if keeps_input else 0,
        splits=(
            Split("m", "tokens", "dp"),
            Split("groups", "experts", "ep"),
            Split(ffn, "ffn", "tp"),
        ),
    )


def _expert_exchange(
    view: RankView, moved: int, copies: int, name: str
) -> tuple[list[Node], list[Node]]:
    ahead: list[Node] = []
    behind: list[Node] = []
    if view.ep > 1:
        ahead += _both_ways(name + "dispatch", moved, copies)
    if view.etp > 1:
        whole, gather, scatter = moved * view.etp, name + "experts.gather", name + "experts.scatter"
        ahead += [
            Collective(gather, "all_gather", "etp", whole, "forward"),
            Collective(gather + ".backward", "reduce_scatter", "etp", whole, "backward"),
        ]
        behind += [
            Collective(scatter, "reduce_scatter", "etp", whole, "forward"),
            Collective(scatter + ".backward", "all_gather", "etp", whole, "backward"),
        ]
    if view.ep > 1:
        behind += _both_ways(name + "collect", moved, copies)
    return ahead, behind


def _both_ways(name: str, size: int, copies: int) -> list[Node]:
    return [
        Collective(name, "all_to_all", "ep", size, "forward", copies=copies),
        Collective(name + ".backward", "all_to_all", "ep", size, "backward", copies=copies),
    ]


def _shared(assembly: Assembly, part: Experts, name: str, before: Flow) -> Flow:
    """The MLP that every token passes (its input is the router's, so it is kept already)."""
    if part.shared is None:
        return []
    view, h = assembly.view, assembly.model.hidden
    flow = _mlp(assembly, part.shared, name, before, keeps_input=False)
    if not part.shared_gate:
        return flow
    gate = elements.linear(view, name + "gate_logit", view.outer_rows, h, 1)
    logit = assembly.add(before, gate)
    scale = elements.elementwise(
        view, name + "scale", "scale", view.outer_rows, h, reads=2, saved=1
    )
    return assembly.add([*flow, *logit], scale)
