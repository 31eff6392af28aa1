"""Legality: why one layout cannot be, said one by one (the space asks the same rules by column)."""

from collections.abc import Iterator

from planner.graph.view import RankView, cp_problem, ep_problem, tp_problem
from planner.schedule.orders import SPLIT
from planner.spec import runnable
from planner.spec.divisors import not_divided
from planner.spec.layout import Layout
from planner.spec.model import ModelSpec
from planner.spec.runnable import experts
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
        yield not_divided(f"ep*etp={members}", members, "tp*cp*dp", ranks)
    replicas = layout.dp * layout.cp
    if layout.shard and replicas % layout.shard:
        said = f"shard={layout.shard}"
        yield not_divided(said, layout.shard, "the replicas, dp*cp", replicas)
    elif problem := shard_problem(layout.tp, layout.cp, layout.ep, layout.etp, layout.shard or 0):
        yield problem
    if layout.sync == "parameter_server" and experts(model):
        yield "sync=parameter_server: other ranks share experts than share the rest; use all_reduce"
    if problem := stages_problem(model, runtime, layout.pp, layout.vpp):
        yield problem
    stages = layout.pp * layout.vpp
    yield from executor_problems(
        model, runtime, tp=layout.tp, cp=layout.cp, stages=stages, zero=layout.zero, etp=layout.etp
    )


def deepest(model: ModelSpec) -> int:
    """The largest number of stages of a model."""
    return model.layers if model.encoder is None else 1


def executor_problems(model: ModelSpec, runtime: Runtime, **degrees: int) -> list[str]:
    """Why a runtime that is the executor of this project cannot divide a model so."""
    if runtime.models == "any":
        return []
    return list(runnable.division_problems(model, **degrees))


def stages_problem(model: ModelSpec, runtime: Runtime, pp: int, vpp: int = 1) -> str | None:
    """Why a runtime cannot cut a model into so many stages; None if it can."""
    if not runtime.equal_stages or model.layers % (pp * vpp) == 0:
        return None
    name = "pp" if vpp == 1 else "pp*vpp"
    why = not_divided(f"{name}={pp * vpp}", pp * vpp, "layers", model.layers)
    return f"{why}: the stages of runtime {runtime.name!r} are equal"


def shard_problem(tp: int, cp: int, ep: int, etp: int, shard: int) -> str | None:
    """Why states cannot be divided over `shard` ranks (0: over all replicas); None if they can.

    A sequence lies on cp of these ranks, and experts borrow theirs from them and from tp.
    """
    if shard % cp:
        return not_divided(f"cp={cp}", cp, "shard", shard)
    if (shard * tp) % (ep * etp):
        return not_divided(f"ep*etp={ep * etp}", ep * etp, "shard*tp", shard * tp)
    return None


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
    yield from _zero_problems(runtime, layout)
    interleaved = layout.vpp > 1 and layout.schedule in ("1f1b", "interleaved")
    if interleaved and 1 < layout.pp < runtime.interleaved_ranks:
        yield (
            f"pp={layout.pp}: runtime {runtime.name!r} interleaves over at least "
            f"{runtime.interleaved_ranks} ranks"
        )
    if layout.vpp > runtime.chunks:
        yield f"vpp={layout.vpp}: runtime {runtime.name!r} has at most {runtime.chunks} chunks"
    if layout.shard and not runtime.hybrid_sharding:
        yield f"shard={layout.shard}: runtime {runtime.name!r} shards over all replicas only"
    if layout.sync not in runtime.synchronisations:
        yield f"sync={layout.sync} is not offered by runtime {runtime.name!r}"
    for name, allowed in (("recompute", runtime.recompute), ("schedule", runtime.schedules)):
        if (value := getattr(layout, name)) not in allowed:
            listed = ", ".join(map(str, allowed))
            yield f"{name}={value} is not offered by runtime {runtime.name!r} ({listed})"


def _zero_problems(runtime: Runtime, layout: Layout) -> Iterator[str]:
    """Where the runtime does not shard so; one replica alone has nothing to shard."""
    if layout.zero == 0 and layout.dp * layout.cp == 1:
        return
    kept = f"zero={layout.zero} is not offered by runtime {runtime.name!r}"
    offered, where = runtime.offered_zero(layout.pp), " under a pipeline" if layout.pp > 1 else ""
    if layout.zero not in offered:
        yield f"{kept}{where} ({', '.join(map(str, offered))})"
    elif layout.schedule in SPLIT and layout.zero not in runtime.split_zero_stages:
        listed = ", ".join(str(z) for z in offered if z in runtime.split_zero_stages)
        yield f"{kept} under schedule={layout.schedule}, which splits the backward ({listed})"
