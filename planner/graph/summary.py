"""Summary: what a model is and costs, as `meshwright show model` says it (schema model/1).

All numbers are of one rank's view: the whole model unless the view is sharded. Per token means
per token of the main stack. A kind of layer is analysed once, however often it occurs, so a
model of 126 layers takes no longer than one of two.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import networkx as nx

from planner.graph import counts, recompute, transformer
from planner.graph.data_parallel import DataParallel, data_parallel, expert_data_parallel
from planner.graph.operator import Collective, Operator
from planner.graph.view import RankView
from planner.spec.model import ModelSpec
from planner.spec.runtime import Recompute
from planner.spec.workload import DTYPE_BYTES

MODES: tuple[Recompute, ...] = ("none", "selective", "full")
SHOWN_DTYPES = ("fp32", "bf16", "fp8")
DEFAULT_SEQ_LEN = 2048


def usual_seq_len(model: ModelSpec) -> int:
    """Tokens per sequence where nobody says: 2048, or what the model can take."""
    spec = model.main.embedding
    return spec.max_positions if spec.convolutions else min(DEFAULT_SEQ_LEN, spec.max_positions)


def summary(
    model: ModelSpec, view: RankView, replicas: DataParallel | None = None
) -> dict[str, Any]:
    """Everything that is known of a model under a view, as JSON values.

    replicas: how data parallelism keeps the parameters, for its collectives.
    """
    tokens = view.batch * view.seq
    forward = counts.total(model, view, lambda operator: operator.forward_flops)
    backward = counts.total(model, view, lambda operator: operator.backward_flops)
    held = counts.total(model, view, lambda operator: operator.parameters)
    return {
        "schema": "model/1",
        "name": model.name,
        "family": model.family,
        "source": model.source,
        "parameters": counts.parameters(model),
        "active_parameters": counts.active_parameters(model),
        "embedding_parameters": counts.embedding_parameters(model),
        "published_parameters": model.published_parameters,
        "published_buffers": model.published_buffers,
        "rank_parameters": held,
        "seq_len": view.seq,
        "micro_batch": view.batch,
        "dtype": view.dtype,
        "task": view.task,
        "flops_per_token": {"forward": forward / tokens, "backward": backward / tokens},
        "weight_bytes": {name: held * DTYPE_BYTES[name] for name in SHOWN_DTYPES},
        "kv_bytes_per_token": cache_bytes_per_token(model, view.dtype),
        "cache_bytes": counts.total(model, view, lambda operator: operator.cache_bytes),
        "activation_bytes": _activations(model, view),
        "layers": layers(model, view),
        "operators": operators(model, view),
        "collectives": collectives(model, view, replicas),
        "architecture": model.model_dump(mode="json"),
    }


def cache_bytes_per_token(model: ModelSpec, dtype: str) -> int:
    """Bytes that one more token adds to the key-value cache of all self-attentions.

    0 where no stack is causal (an encoder has no cache).
    """
    view = RankView(1, 1, dtype=dtype, task="prefill", source=1)
    found = 0
    for graph, times, spec in counts.parts(model, view):
        if spec is not None and spec.attention.causal:
            found += times * sum(
                operator.cache_bytes
                for operator in transformer.operators(graph)
                if ".cross_attention." not in operator.name
            )
    return found


def layers(model: ModelSpec, view: RankView) -> list[dict[str, Any]]:
    """One entry per layer, in order."""
    kinds = {
        each: _layer(model, view, transformer.layer_graph(model, view, "layer.", *each), each[0])
        for each in dict.fromkeys(model.order)
    }
    found: list[dict[str, Any]] = []
    for stack, spec in enumerate(model.stacks):
        prefix = transformer.stack_prefix(model, stack)
        for index, kind in enumerate(spec.order):
            name = {"name": f"{prefix}layer{index}", "stack": spec.name, "kind": kind}
            found.append(name | kinds[stack, kind])
    return found


def _layer(model: ModelSpec, view: RankView, graph: nx.DiGraph, stack: int) -> dict[str, Any]:
    held = transformer.operators(graph)
    own = transformer.stack_view(model, view, stack)
    inputs = recompute.input_bytes(model, own) if view.task == "train" else 0
    kept = {mode: recompute.saved_bytes(graph, mode, inputs, own) for mode in MODES}
    return {
        "parameters": sum(operator.parameters for operator in held),
        "forward_flops": sum(operator.forward_flops for operator in held),
        "input_gradient_flops": sum(operator.input_gradient_flops for operator in held),
        "weight_gradient_flops": sum(operator.weight_gradient_flops for operator in held),
        "activation_bytes": kept,
    }


def _activations(model: ModelSpec, view: RankView) -> dict[str, Any]:
    """Bytes kept for the backward by all layers, in each recompute mode, and by the rest."""
    each = layers(model, view)
    kept: dict[str, int] = {
        mode: sum(layer["activation_bytes"][mode] for layer in each) for mode in MODES
    }
    ends = sum(
        operator.saved_bytes
        for graph, _, spec in counts.parts(model, view)
        if spec is None
        for operator in transformer.operators(graph)
    )
    return {**kept, "embedding_and_head": ends}


def named_parts(model: ModelSpec, view: RankView) -> Iterator[tuple[str, nx.DiGraph, int]]:
    """Every distinct part with the name that its nodes share, and how often it occurs.

    Layers of one kind are one part, `layer*.` or, where there are several kinds, `layer[0-2]*.`.
    """
    for stack, spec in enumerate(model.stacks):
        prefix = transformer.stack_prefix(model, stack)
        yield f"{prefix}embedding", transformer.embedding_graph(model, view, stack), 1
        often = Counter(spec.order)
        for kind in dict.fromkeys(spec.order):
            mark = "*" if len(often) == 1 else f"[{ranges(spec.order, kind)}]"
            graph = transformer.layer_graph(model, view, f"{prefix}layer{mark}.", stack, kind)
            yield f"{prefix}layer{mark}", graph, often[kind]
    if model.encoder is not None:
        yield "encoder", transformer.encoder_end_graph(model, view), 1
    yield "head", transformer.head_graph(model, view, holds_embedding=True), 1


def ranges(order: tuple[int, ...], kind: int) -> str:
    """Which layers are of a kind: `0-2`, or `0,2,4,...` shortened after three runs."""
    runs: list[list[int]] = []
    for index, each in enumerate(order):
        if each != kind:
            continue
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return ",".join(shown if len(shown) <= 4 else [*shown[:3], "..", shown[-1]])


def operators(model: ModelSpec, view: RankView) -> list[dict[str, Any]]:
    """One entry per distinct operator, with how often it runs."""
    return [
        _operator(operator, times)
        for _, graph, times in named_parts(model, view)
        for operator in transformer.operators(graph)
    ]


def _operator(operator: Operator, times: int) -> dict[str, Any]:
    return {
        "name": operator.name,
        "count": times,
        "kind": operator.kind,
        "dims": dict(operator.dims),
        "forward_flops": operator.forward_flops,
        "input_gradient_flops": operator.input_gradient_flops,
        "weight_gradient_flops": operator.weight_gradient_flops,
        "forward_bytes": operator.forward_bytes,
        "backward_bytes": operator.backward_bytes,
        "parameters": operator.parameters,
        "saved_bytes": operator.saved_bytes,
        "cache_bytes": operator.cache_bytes,
        "splits": [[split.dim, split.meaning, split.axis] for split in operator.splits],
    }


def collectives(
    model: ModelSpec, view: RankView, replicas: DataParallel | None
) -> list[dict[str, Any]]:
    """One entry per distinct collective of the sharded view, with how often it runs."""
    found = []
    for name, graph, times in named_parts(model, view):
        own = transformer.collectives(graph)
        if replicas is not None and view.task == "train":
            own += data_parallel(graph, replicas, name + ".")
            own += expert_data_parallel(graph, replicas.of_experts(view), name + ".")
        found += [_collective(node, times) for node in own]
    return found


def _collective(node: Collective, times: int) -> dict[str, Any]:
    return {
        "name": node.name,
        "count": times * node.count,
        "op": node.op,
        "axis": node.axis,
        "phase": node.phase,
        "message_bytes": node.message_bytes,
    }
