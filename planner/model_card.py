"""Model card: `meshwright show model`: one model's sizes, work and graph, as tables, JSON or files.

A layout (`--layout "tp=8 cp=2 ep=4 zero=3"`) shows one rank's share and its collectives.
"""

from pathlib import Path
from typing import Any, cast

from planner.graph import document, graphml, summary, transformer
from planner.graph.data_parallel import DataParallel
from planner.graph.picture import drawing
from planner.graph.structure import parallelism
from planner.graph.view import RankView, Task, cp_problem, ep_problem, tp_problem
from planner.spec import catalog, documents
from planner.spec.divisors import not_divided
from planner.spec.documents import InputError
from planner.spec.layout import Layout
from planner.spec.lengths import check_length
from planner.spec.model import ModelSpec
from planner.spec.runtime import ContextStyle
from planner.spec.units import format_bytes, format_count
from planner.spec.workload import DTYPE_BYTES

Rows = list[dict[str, Any]]
GRADIENT_BYTES = 4
"""Gradients are reduced in fp32, as most runtimes do."""


def find(name: str, mtp_layers: int | None) -> ModelSpec:
    """The model of a name, with so many layers that predict further tokens. Raises InputError."""
    model = catalog.find_model(name)
    if mtp_layers is None:
        return model
    if mtp_layers < 0 or model.head.kind != "language_model":
        raise InputError(f"--mtp {mtp_layers}: a number from 0 on, for a model with a vocabulary")
    return model.replace(head=model.head.replace(mtp_layers=mtp_layers))


def view_of(
    model: ModelSpec,
    seq_len: int | None,
    micro_batch: int,
    dtype: str,
    task: str,
    cached: int,
    layout: str,
    cp_style: str,
) -> tuple[RankView, DataParallel | None]:
    """The view that the options describe. Raises InputError with every problem."""
    # the two casts below hold what this has checked
    _check(dtype, task, micro_batch, seq_len, cached, cp_style)
    if seq_len is not None and task == "train":
        check_length(model, seq_len)
    usual = 1 if task == "decode" else summary.usual_seq_len(model)
    degrees = Layout.parse(layout)[0] if layout else Layout()
    view = RankView(
        batch=micro_batch,
        seq=seq_len or usual,
        tp=degrees.tp,
        cp=degrees.cp,
        cp_style=cast(ContextStyle, cp_style),
        ep=degrees.ep,
        sequence_parallel=task != "decode",
        dtype=dtype,
        task=cast(Task, task),
        cached=cached,
    )
    problems = [
        tp_problem(model, view.seq, view.tp, view.sequence_parallel),
        cp_problem(model, view),
        ep_problem(model, view.ep, view.etp),
    ]
    ranks = degrees.dp * degrees.cp
    if ranks * degrees.tp % view.ep and not any(problems):
        problems.append(not_divided(f"ep={view.ep}", view.ep, "dp*cp*tp", ranks * degrees.tp))
    if found := [f"--layout: {problem}" for problem in problems if problem]:
        raise InputError("\n".join(found))
    copies = DataParallel(ranks, degrees.zero, DTYPE_BYTES[dtype], GRADIENT_BYTES)
    return view, copies if ranks > 1 else None


def _check(
    dtype: str, task: str, micro_batch: int, seq_len: int | None, cached: int, cp_style: str
) -> None:
    for option, value, known in (
        ("--dtype", dtype, tuple(DTYPE_BYTES)),
        ("--task", task, ("train", "prefill", "decode")),
        ("--cp-style", cp_style, ("ring", "all_to_all", "all_gather")),
    ):
        if value not in known:
            raise InputError(f"{option} {value!r} is not known; write one of {', '.join(known)}")
    for option, number, least in (
        ("--micro-batch", micro_batch, 1),
        ("--seq-len", 1 if seq_len is None else seq_len, 1),
        ("--cached", cached, 0),
    ):
        if number < least:
            raise InputError(f"{option} {number}: must be at least {least}")
    if cached and task == "train":
        raise InputError("--cached belongs to --task prefill or decode; training has no cache")


def card(model: ModelSpec, view: RankView, copies: DataParallel | None) -> dict[str, Any]:
    """The JSON value of the card."""
    made = summary.summary(model, view, copies)
    found = parallelism.summary(transformer.model_graph(model, view))
    return made | {"parallelism": _parallelism(found)}


def _parallelism(found: parallelism.Parallelism) -> dict[str, Any]:
    return {
        "operators": found.operators,
        "edges": found.edges,
        "at_once": found.width,
        "at_once_is_exact": found.exact,
        "for_example": [node.name for node in found.widest],
        "forward_flops": found.work,
        "critical_path_forward_flops": found.critical,
        "average": found.average,
        "critical_path_operators": len(found.path),
        "critical_path": parallelism.path_text(found.path),
    }


def write_graph(model: ModelSpec, view: RankView, path: Path) -> Path:
    """Write the operator graph by the file's ending: GraphML, a picture (SVG), or the document that
    `capture` writes of a module (JSON; of a whole model only). Raises InputError."""
    graph = transformer.model_graph(model, view)
    if path.suffix == ".graphml":
        return documents.write_text(path, graphml.graphml(graph))
    if path.suffix == ".svg":
        return documents.write_text(path, drawing.picture(graph, _title(model, view)))
    if path.suffix == ".json":
        return documents.save(document.from_graph(graph, model.name), path)
    raise InputError(
        f"--graph {path}: {path.suffix or 'no ending'!r}; write .graphml, .svg or .json"
    )


def _title(model: ModelSpec, view: RankView) -> str:
    return f"{model.name}, {view.task} of {view.batch} x {view.seq} tokens, {view.dtype}"


def fact_rows(made: dict[str, Any]) -> Rows:
    """The numbers of the card as key and value."""
    flops, activations = made["flops_per_token"], made["activation_bytes"]
    at_once = made["parallelism"]
    facts = {
        "parameters": f"{made['parameters']:,}",
        "published": _published(made),
        "active per token": f"{made['active_parameters']:,}",
        "in embeddings": f"{made['embedding_parameters']:,}",
        "on this rank": f"{made['rank_parameters']:,}",
        "weights": ", ".join(f"{format_bytes(b)} {d}" for d, b in made["weight_bytes"].items()),
        "FLOPs per token": f"forward {format_count(flops['forward'])}, "
        f"backward {format_count(flops['backward'])}",
        "KV cache per token": format_bytes(made["kv_bytes_per_token"]),
        "KV cache after this pass": format_bytes(made["cache_bytes"]),
        "activations of all layers": ", ".join(
            f"{mode} {format_bytes(activations[mode])}" for mode in summary.MODES
        ),
        "activations of embedding and head": format_bytes(activations["embedding_and_head"]),
        "operators": f"{at_once['operators']} with {at_once['edges']} edges",
        "operators at once": f"{'' if at_once['at_once_is_exact'] else 'at least '}"
        f"{at_once['at_once']} ({', '.join(at_once['for_example'][:6])})",
        "critical path": f"{at_once['critical_path_operators']} operators, "
        f"{_share(at_once):.1%} of the forward FLOPs",
        "": at_once["critical_path"],
    }
    return [{"key": key, "value": value} for key, value in facts.items() if value != ""]


def _share(found: dict[str, Any]) -> float:
    """The critical path's share of the work; all of it where there is none."""
    work = found["forward_flops"]
    return float(found["critical_path_forward_flops"] / work) if work else 1.0


def _published(made: dict[str, Any]) -> str:
    """What the authors print beside what is counted, in words."""
    published, extra = made["published_parameters"], made["published_buffers"]
    if published is None:
        return ""
    if published != made["parameters"] + extra:
        return f"{published:,} (differs)"
    return "equal" if not extra else f"{published:,} (equal; {extra:,} of them are no parameters)"


def layer_rows(made: dict[str, Any]) -> Rows:
    """One row per kind of layer."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for layer in made["layers"]:
        kept = layer["activation_bytes"]
        row = rows.setdefault(
            (layer["stack"], layer["kind"]),
            {
                "layers": 0,
                "first": layer["name"],
                "parameters": f"{layer['parameters']:,}",
                "forward FLOPs": format_count(layer["forward_flops"]),
                "input gradient": format_count(layer["input_gradient_flops"]),
                "weight gradient": format_count(layer["weight_gradient_flops"]),
                **{f"keeps ({mode})": format_bytes(kept[mode]) for mode in summary.MODES},
            },
        )
        row["layers"] += 1
    return list(rows.values())


def operator_rows(made: dict[str, Any]) -> Rows:
    """One row per distinct operator."""
    return [
        {
            "operator": each["name"],
            "times": each["count"],
            "kind": each["kind"],
            "dims": " ".join(f"{name}={size}" for name, size in each["dims"].items()),
            "forward FLOPs": format_count(each["forward_flops"]),
            "backward FLOPs": format_count(
                each["input_gradient_flops"] + each["weight_gradient_flops"]
            ),
            "forward bytes": format_bytes(each["forward_bytes"]),
            "parameters": format_count(each["parameters"]),
            "keeps": format_bytes(each["saved_bytes"]),
        }
        for each in made["operators"]
    ]


def collective_rows(made: dict[str, Any]) -> Rows:
    """One row per distinct collective of a sharded view."""
    return [
        {
            "collective": each["name"],
            "times": each["count"],
            "op": each["op"],
            "axis": each["axis"],
            "phase": each["phase"],
            "bytes": format_bytes(each["message_bytes"]),
        }
        for each in made["collectives"]
    ]
