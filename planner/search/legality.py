"""Legality: why one layout cannot be, said one by one (the space asks the same rules by column)."""

from collections.abc import Iterator

from planner.graph.view import RankView, cp_problem, ep_problem, tp_problem
from planner.schedule.orders import SPLIT
from planner.spec.layout import Layout
from planner.spec.model import ModelSpec
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload


def mesh_problems(
    model: ModelSpec, workload: Workload, runtime: Runtime, layout: Layout
) -> Iterator[str]:
    """Why the model cannot be divided over the degrees."""
    if problem := tp_problem(model, workload.seq_len, layout.tp, runtime.sequence_parallel):
        yield problem
    view = RankView(
        1,
        workload.seq_len,
        layout.tp,
        runtime.sequence_parallel,
        cp=layout.cp,
        cp_style=layout.cp_style,
    )
    if problem := cp_problem(model, view):
        yield problem
    if problem := ep_problem(model, layout.ep, layout.etp):
        yield problem
    ranks, members = layout.tp * layout.cp * layout.dp, layout.ep * layout.etp
    if ranks % members:
        yield f"ep*etp={members} does not divide tp*cp*dp={ranks}"
    replicas = layout.dp * layout.cp
    if layout.shard and replicas % layout.shard:
        yield f"shard={layout.shard} does not divide the dp*cp={replicas} replicas"


def runtime_problems(runtime: Runtime, layout: Layout) -> Iterator[str]:
    """What of a layout the runtime does not offer."""
    for axis in ("tp", "cp", "ep", "pp"):
        if (degree := getattr(layout, axis)) > 1 and axis not in runtime.axes:
            yield f"{axis}={degree}: runtime {runtime.name!r} does not divide over {axis}"
    if layout.cp > 1 and "cp" in runtime.axes and layout.cp_style not in runtime.context_styles:
        listed = ", ".join(runtime.context_styles)
        yield f"cp_style={layout.cp_style} is not offered by runtime {runtime.name!r} ({listed})"
    if layout.etp > 1 and not runtime.shares_experts:
        yield f"etp={layout.etp} is not offered by runtime {runtime.name!r}; leave it at 1"
    kept = f"zero={layout.zero} is not offered by runtime {runtime.name!r}"
    if layout.pp > 1 and layout.zero not in runtime.pipeline_zero_stages:
        yield f"{kept} under a pipeline ({', '.join(map(str, runtime.pipeline_zero_stages))})"
    if layout.schedule in SPLIT and layout.zero not in runtime.split_zero_stages:
        yield (
            f"{kept} under schedule={layout.schedule}, which splits the backward "
            f"({', '.join(map(str, runtime.split_zero_stages))})"
        )
    if layout.vpp > runtime.chunks:
        yield f"vpp={layout.vpp}: runtime {runtime.name!r} has at most {runtime.chunks} chunks"
    if layout.shard and not runtime.hybrid_sharding:
        yield f"shard={layout.shard}: runtime {runtime.name!r} shards over all replicas only"
    if layout.sync not in runtime.synchronisations:
        yield f"sync={layout.sync} is not offered by runtime {runtime.name!r}"
    for name, allowed in (
        ("zero", runtime.zero_stages),
        ("recompute", runtime.recompute),
        ("schedule", runtime.schedules),
    ):
        if (value := getattr(layout, name)) not in allowed:
            listed = ", ".join(map(str, allowed))
            yield f"{name}={value} is not offered by runtime {runtime.name!r} ({listed})"
