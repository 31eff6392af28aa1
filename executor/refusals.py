"""Refusals: what this executor cannot run, each by name, before any process is started."""

from collections.abc import Iterator

from planner.schedule import orders
from planner.spec import runnable
from planner.spec.cluster import Backend
from planner.spec.divisors import not_divided
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.profile import Machine
from planner.spec.units import format_bytes

PROCESS_BYTES = 300 * 2**20
"""Assumed: resident bytes of one Python process with torch, before the model."""


def check(plan: Plan) -> None:
    """Raise InputError unless the executor can run the plan somewhere."""
    for rule in RULES:
        for problem in rule(plan):
            raise InputError(f"the executor cannot run this plan: {problem}")


def _axes(plan: Plan) -> Iterator[str]:
    for index, stage in enumerate(plan.stages):
        for axis in ("dp", "tp", "cp", "ep"):
            if getattr(stage, axis) != getattr(plan.layout, axis):
                yield (
                    f"stages.{index}.{axis}={getattr(stage, axis)} differs from layout.{axis}="
                    f"{getattr(plan.layout, axis)}; stages of unequal degrees are not implemented"
                )


def _schedule(plan: Plan) -> Iterator[str]:
    layout = plan.layout
    wrong = orders.problem(layout.schedule, layout.pp, layout.vpp, plan.microbatches)
    if wrong is not None:
        yield f"layout.schedule with pp={layout.pp} ranks of vpp={layout.vpp} chunks: {wrong}"


def _choices(plan: Plan) -> Iterator[str]:
    layout = plan.layout
    replicas = layout.dp * layout.cp
    if layout.shard is not None and (not layout.zero or replicas % layout.shard):
        yield (
            f"layout.shard={layout.shard} with zero={layout.zero} on {replicas} replicas: ZeRO 1 "
            f"to 3 divide the states over a divisor of the replicas; change it or leave it out"
        )
    if layout.sync == "parameter_server" and layout.zero:
        yield (
            f"layout.sync=parameter_server with zero={layout.zero}: servers divide the states "
            f"already; plan with zero=0"
        )
    if layout.sync == "parameter_server" and runnable.experts(plan.model):
        yield (
            "layout.sync=parameter_server with experts, which other ranks share than share the "
            "rest, is not implemented; plan with sync=all_reduce"
        )
    for index, stage in enumerate(plan.stages):
        if any(choice.zero != plan.layout.zero for choice in stage.layers):
            yield f"stages.{index}: layers with another zero than layout.zero; make them equal"


def _model(plan: Plan) -> Iterator[str]:
    for problem in runnable.problems(plan.model, plan.workload.seq_len):
        yield f"{problem}; run {runnable.RUNNABLE}, or plan for another runtime"


def _division(plan: Plan) -> Iterator[str]:
    layout, stages = plan.layout, len(plan.stages)
    yield from runnable.division_problems(
        plan.model, layout.tp, layout.cp, stages, layout.zero, layout.etp
    )


def _formats(plan: Plan) -> Iterator[str]:
    work, runtime = plan.workload, plan.runtime
    if work.dtype in ("fp8", "fp4"):
        yield f"workload.dtype={work.dtype} is not implemented; plan with bf16"
    narrow = work.dtype in ("bf16", "fp16")
    if narrow and not (runtime.master_weights and runtime.widens_gradients(work.dtype)):
        yield (
            f"runtime {runtime.name!r} keeps no fp32 master weights or gradients; "
            f"16-bit training here needs both: plan with --runtime native"
        )


def _tensor_parallel(plan: Plan) -> Iterator[str]:
    model, tp = plan.model, plan.layout.tp
    sizes = {("seq_len", plan.workload.seq_len)}
    for attention in runnable.attentions(model):
        sizes |= {("heads", attention.heads), ("kv_heads", attention.kv_heads)}
    sizes |= {("ffn", mlp.ffn) for mlp in runnable.mlps(model)}
    for key, value in sorted(sizes):
        if value % tp:
            yield not_divided(f"tp={tp}", tp, key, value)


def _context_parallel(plan: Plan) -> Iterator[str]:
    layout, seq_len = plan.layout, plan.workload.seq_len
    if layout.cp == 1:
        return
    attentions = runnable.attentions(plan.model)
    if plan.model.encoder is not None or not all(each.causal for each in attentions):
        yield f"layout.cp={layout.cp} divides the sequences of causal decoders only; use cp=1"
    chunks = layout.cp if layout.cp_style == "all_to_all" else 2 * layout.cp
    for parts in (chunks, layout.cp * layout.tp):
        if seq_len % parts:
            yield (
                f"cp={layout.cp} with cp_style={layout.cp_style} and tp={layout.tp} cuts "
                f"sequences in {parts} parts, and that does not divide seq_len={seq_len}"
            )
    if layout.cp_style == "all_to_all":
        heads = {("heads", each.heads) for each in attentions}
        for key, value in sorted(heads | {("kv_heads", each.kv_heads) for each in attentions}):
            if value % (layout.cp * layout.tp):
                yield (
                    f"cp={layout.cp} by all_to_all with tp={layout.tp} does not divide "
                    f"{key}={value}; use cp_style=ring"
                )


def _expert_parallel(plan: Plan) -> Iterator[str]:
    layout, ways = plan.layout, f"layout.ep={plan.layout.ep} etp={plan.layout.etp}"
    members, kinds = layout.ep * layout.etp, runnable.experts(plan.model)
    if members > 1 and not kinds:
        yield f"{ways} divide experts, and {plan.model.name} has none; plan with ep=1 etp=1"
    if (ranks := layout.tp * layout.cp * layout.dp) % members:
        yield f"{ways}: {not_divided(f'ep*etp={members}', members, 'tp*cp*dp', ranks)}"
    for each in kinds:
        if each.experts % layout.ep:
            yield f"{ways}: {not_divided('ep', layout.ep, 'experts', each.experts)}"
        if each.expert.ffn % layout.etp:
            why = not_divided("etp", layout.etp, "the experts' ffn", each.expert.ffn)
            yield f"{ways}: {why}"


RULES = (
    *(_model, _axes, _schedule, _choices, _formats),
    *(_tensor_parallel, _context_parallel, _expert_parallel, _division),
)


def choose_backend(plan: Plan, machine: Machine, choice: str) -> Backend:
    """gloo or nccl. Raises InputError where the plan and the machine do not agree."""
    has_gpus = machine.kind == "cuda"
    if choice == "nccl" and not has_gpus:
        raise InputError("--backend: nccl needs GPUs and this machine has none; use gloo")
    if choice == "auto" and plan.cluster.backend == "nccl" and not has_gpus:
        raise InputError(
            f"this plan is for {plan.cluster.name} with nccl, this machine has no GPU; run it "
            f"there, or run it here on the CPU with --backend gloo"
        )
    if choice == "gloo":
        return "gloo"
    return "nccl" if has_gpus else "gloo"


def check_machine(plan: Plan, machine: Machine, backend: Backend, held_bytes: float) -> None:
    """Raise InputError if the machine cannot hold the plan's ranks.

    held_bytes: weights, gradients and optimiser states of all ranks together.
    """
    ranks = plan.layout.devices
    if backend == "nccl":
        _check_gpus(ranks, machine, held_bytes)
        return
    needed = held_bytes + ranks * PROCESS_BYTES
    if needed > machine.memory_bytes:
        raise InputError(
            f"{ranks} ranks need at least {format_bytes(needed)} here (weights, gradients and "
            f"optimiser {format_bytes(held_bytes)}, processes "
            f"{format_bytes(ranks * PROCESS_BYTES)}), this machine has "
            f"{format_bytes(machine.memory_bytes)}; run a smaller model or fewer ranks"
        )


def check_one(rank: int, machine: Machine, peak_bytes: float) -> None:
    """Raise InputError if the machine cannot hold one rank of a plan alone.

    peak_bytes: what the rank is predicted to hold at once.
    """
    where, there = "this machine", machine.memory_bytes
    if machine.kind == "cuda":
        where, there = "a GPU here", machine.accelerator_memory_bytes or 0.0
    if peak_bytes > there:
        raise InputError(
            f"rank {rank} alone needs {format_bytes(peak_bytes)}, {where} has "
            f"{format_bytes(there)}; divide the plan further or recompute, or see what it sends "
            f"and holds with `meshwright ledger`"
        )


def _check_gpus(ranks: int, machine: Machine, held_bytes: float) -> None:
    if ranks > machine.accelerators:
        raise InputError(
            f"the plan needs {ranks} GPUs (one per rank), this machine has "
            f"{machine.accelerators}; plan for {machine.accelerators}"
        )
    memory = machine.accelerator_memory_bytes or 0.0
    if held_bytes / ranks > memory:
        raise InputError(
            f"a rank needs at least {format_bytes(held_bytes / ranks)}, a GPU here has "
            f"{format_bytes(memory)}"
        )
