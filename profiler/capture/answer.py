"""Answer: a captured graph as tables on stdout, and what could not be classified, in shares."""

from collections import defaultdict
from typing import Any

from planner.spec import printing
from planner.spec.graph import UNCLASSIFIED, GraphDocument, GraphLayer, GraphOperator
from planner.spec.units import format_bytes, format_count

Rows = list[dict[str, Any]]


def print_graph(graph: GraphDocument) -> None:
    """Print what was captured, its layers, its kinds, and what could not be classified."""
    printing.print_table(fact_rows(graph), f"graph {graph.name}")
    printing.print_table(layer_rows(graph), "repeated layers")
    printing.print_table(kind_rows(graph), "operators")
    printing.print_table(unclassified_rows(graph), "unclassified")


def fact_rows(graph: GraphDocument) -> Rows:
    """What the module is and what it costs as a whole."""
    totals, origin = graph.totals, graph.origin
    facts = {
        "module": origin.module if origin else "",
        "mode": f"{origin.mode}, backward from {origin.backward_from}" if origin else "",
        "inputs": ", ".join(
            f"{given.name} {given.dtype}{list(given.shape)}"
            for given in (origin.inputs if origin else ())
        ),
        "parameters": f"{totals.parameters:,}",
        "  frozen": f"{totals.frozen_parameters:,}",
        "  in no operator": f"{graph.unused_parameters:,}",
        "FLOPs forward": format_count(totals.forward_flops),
        "FLOPs backward": format_count(totals.backward_flops),
        "  gradients of inputs": format_count(totals.input_gradient_flops),
        "  gradients of weights": format_count(totals.weight_gradient_flops),
        "kept for the backward": format_bytes(totals.saved_bytes),
        "operators": f"{totals.operators:,}",
    }
    return [{"fact": key, "value": value} for key, value in facts.items()]


def layer_rows(graph: GraphDocument) -> Rows:
    """One row per structure; layers that differ in bookkeeping only are one row."""
    same: dict[tuple[str, str], list[GraphLayer]] = defaultdict(list)
    for layer in graph.layers:
        same[(layer.container, layer.structure)].append(layer)
    return [_layer_row(layers) for layers in same.values()] or [{"layers": "no layer is repeated"}]


def _layer_row(layers: list[GraphLayer]) -> dict[str, Any]:
    usual = max(layers, key=lambda layer: layer.count)
    totals = usual.totals
    return {
        "layers": usual.container,
        "count": sum(layer.count for layer in layers),
        "operators": totals.operators,
        "parameters": f"{totals.parameters:,}",
        "FLOPs forward": format_count(totals.forward_flops),
        "FLOPs backward": format_count(totals.backward_flops),
        "kept": format_bytes(totals.saved_bytes),
        "structure": usual.structure,
    }


def kind_rows(graph: GraphDocument) -> Rows:
    """One row per kind of operator, with its share of FLOPs and bytes."""
    kinds: dict[str, list[GraphOperator]] = defaultdict(list)
    operators = graph.flat_operators()
    for operator in operators:
        kinds[operator.kind].append(operator)
    flops, moved = graph.totals.forward_flops, sum(op.forward_bytes for op in operators)
    rows = [
        {
            "kind": kind,
            "count": len(found),
            "FLOPs": _share(sum(op.forward_flops for op in found), flops),
            "bytes": _share(sum(op.forward_bytes for op in found), moved),
        }
        for kind, found in kinds.items()
    ]
    return sorted(rows, key=lambda row: (row["kind"] == UNCLASSIFIED, -int(str(row["count"]))))


def unclassified_rows(graph: GraphDocument) -> Rows:
    """One row per target that has bytes, but no FLOPs, with its share of the bytes forward."""
    moved = sum(operator.forward_bytes for operator in graph.flat_operators())
    return [
        {
            "target": found.target,
            "count": found.count,
            "bytes": _share(found.forward_bytes, moved),
            "where": ", ".join(found.where) + (" ..." if found.count > len(found.where) else ""),
        }
        for found in graph.unclassified
    ] or [{"target": "nothing: every operator has a kind"}]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0.0 %"
