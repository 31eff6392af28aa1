"""Case: a measured run made into what the planner predicts: model, cluster, workload, layout.

Degrees. dp * tp * pp * cp = n_gpus. One unknown degree follows from the others; several are 1
where the known ones already use all devices, or where the run is FSDP (dp takes all devices).
Batch. global_batch = dp * micro_batch * grad_accum; one unknown follows from the others.
Ranks that share an expert (etp) where the row does not tell: those of tp in software that does so
unless told not to (runtime.experts_follow_tp) and whose degrees leave room, else one. The recipes
of Megatron-Bridge say 1 for every mixture.
A throughput without a sequence length is taken as one of USUAL_LENGTH, a microbatch that nothing
tells as one sequence; torchtitan cuts a rank's batch into as many as the pipeline has ranks
(pipeline_parallel_microbatches, in 2024 and early 2025; one sequence each since). Under a pipeline
it does not give gathered weights back between microbatches (fsdp_reshard_after_forward "default"),
and PyTorch's stages keep whole gradients until the last of them (set_requires_gradient_sync(False)
in torch/distributed/pipelining/stage.py): what ZeRO 1 sends and holds, whatever the row says. A
row that tells FLOP/s or MFU only has a time where the caller counts the FLOPs of a step
(planner/spec/runs/rate.py).
Flags of the row (sequence_parallel, flash_attention) replace the runtime's; unknown ones stay.
What is assumed is noted on the case; a run that cannot be predicted is counted under one reason.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.spec.cluster import ClusterSpec
from planner.spec.layout import Layout
from planner.spec.model import ModelSpec
from planner.spec.runs.cluster import cluster_of
from planner.spec.runs.model import model_of, with_further_tokens
from planner.spec.runs.rate import Flops, counted_flops, seconds_by_rate
from planner.spec.runs.run import Run
from planner.spec.runs.runtime import nearest, runtime_of
from planner.spec.runs.unusable import UnusableError
from planner.spec.runtime import AXES, Recompute, Runtime
from planner.spec.workload import Dtype, Workload

FAILED = r"\boom\b|out[ _-]of[ _-]memory|crash|\bfailed\b"
FROZEN_WEIGHTS = r"\bq?lora\b|\bpeft\b"
PACKED = r"packed sequences"
FULLY_SHARDED = (
    r"[fh]sdp|fully[-_ ]?shard|zero-?3|torchtitan|composer|torchtune|maxtext|levanter|foundry"
    r"|automodel|lit-?gpt|olmo"
)
USUAL_LENGTH = 4096
"""Assumed: tokens of a sequence, of a throughput whose row does not say it."""

COPIES = frozenset({"fsdp", "composer-fsdp", "torchtitan", "deepspeed"})
"""Runtimes whose rows leave out degrees that they do not use: dp takes all devices."""

PREDICT_FURTHER = frozenset({"nemo", "megatron-core"})
"""Runtimes whose recipes train a model's layers for further tokens: `m` in the pipeline layouts of
DeepSeek-V3, NVIDIA-NeMo/Megatron-Bridge scripts/performance/configs/deepseek."""

UNSHARED_EXPERTS = r"bridge"
"""Sources whose recipes leave every expert whole: expert_tensor_parallel_size=1 in all of
NVIDIA-NeMo/Megatron-Bridge scripts/performance/configs."""

SENDS_ONCE = r"deep-?ep\b|hybrid-?ep\b"
"""Dispatchers that send a token to a node once, however many of its experts are there."""

OVERLAPS_EXPERTS = r"dual-?pipe|1f1b[- ]overlap|(a2a|all-to-all|moe|ep)[- ]overlap|overlap-moe"
"""Schedules that exchange tokens beside another microbatch's layers (DeepSeek-V3's report;
--overlap-moe-expert-parallel-comm of Megatron-core)."""

OVERLAPS_TP = r"maxtext|\bjax\b|\bxla\b|pax|flax|pathways|levanter"
"""XLA cuts exchanges of tp into pieces beside the products they feed (Wang et al. 2023; the flags
--xla_tpu_enable_async_collective_fusion and overlap_compute_collective_tc of MaxText's scripts)."""

SHARDS_ITS_OPTIMIZER = r"nemo|megatron-core|mcore|megatron-bridge|nanotron"
DTYPES: tuple[tuple[str, Dtype], ...] = (
    (r"fp4|float4|e2m1", "fp4"),
    (r"fp8|float8|e4m3|e5m2", "fp8"),
    (r"bf16|bfloat16", "bf16"),
    (r"fp16|float16|half", "fp16"),
    (r"tf32", "tf32"),
    (r"fp32|float32", "fp32"),
)
SUBSTITUTES: dict[Dtype, tuple[Dtype, ...]] = {
    "fp4": ("fp4", "fp8", "bf16", "fp16"),
    "fp8": ("fp8", "bf16", "fp16"),
    "bf16": ("bf16", "fp16"),
    "fp16": ("fp16", "bf16"),
    "tf32": ("tf32", "fp32"),
    "fp32": ("fp32",),
}
RECOMPUTE: dict[str, Recompute] = {
    "none": "none",
    "no": "none",
    "0": "none",
    "false": "none",
    "selective": "selective",
    "core": "selective",
    "attention": "selective",
    "full": "full",
    "uniform": "full",
    "block": "full",
    "1": "full",
    "true": "full",
    "yes": "full",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A run that can be predicted. step_seconds, peak_bytes: measured, None where they are not.

    failed: the layout is known and it ran out of memory, crashed or timed out.
    notes: what was assumed, one sentence each, the same for all rows that need it.
    """

    run: Run
    model: ModelSpec
    cluster: ClusterSpec
    workload: Workload
    runtime: Runtime
    layout: Layout
    step_seconds: float | None
    peak_bytes: float | None
    failed: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cases:
    """The usable runs in their order, and how many were skipped for which reason."""

    cases: tuple[Case, ...]
    skipped: Mapping[str, int]


def make_cases(
    runs: Iterable[Run], runtime: str | None = None, flops: Flops | None = None
) -> Cases:
    """Every run as a case, or counted under its reason. runtime: instead of the rows' own.

    Raises InputError if that runtime does not exist.
    """
    cases: list[Case] = []
    skipped: collections.Counter[str] = collections.Counter()
    for run in runs:
        try:
            cases.append(case_of(run, runtime, flops))
        except UnusableError as reason:
            skipped[str(reason)] += 1
    return Cases(tuple(cases), dict(sorted(skipped.items())))


def case_of(run: Run, chosen: str | None = None, flops: Flops | None = None) -> Case:
    """One run as a case. Raises UnusableError."""
    if run.warning:
        raise UnusableError("warning=1: the source contradicts itself")
    failed = _failed(run)
    timed = run.timed or (run.rated and flops is not None)
    if not timed and run.peak_bytes is None and not failed:
        raise UnusableError("no step time")
    if re.search(FROZEN_WEIGHTS, (run.model or "").lower()):
        raise UnusableError("LoRA: most weights are frozen")
    run, of_length = _with_length(run)
    assert run.seq_len is not None
    degrees, of_degrees = _degrees(run)
    micro_batch, global_batch, of_batch = _batch(run, degrees)
    cluster, of_cluster = cluster_of(run, degrees["n_gpus"])
    model, of_model = model_of(run, run.seq_len, degrees["tp"])
    divided = [axis for axis in AXES if degrees[axis] > 1]
    runtime, of_runtime = runtime_of(run, chosen, divided)
    of_further: tuple[str, ...] = ()
    if runtime.name in PREDICT_FURTHER:
        model, of_further = with_further_tokens(model, run.model or "")
    runtime, of_traits = _with_flags(runtime, run, degrees["tp"])
    dtype, of_dtype = _dtype(run, cluster)
    zero, of_zero = _zero(run, runtime, degrees["pp"])
    degrees["etp"], of_experts = _expert_ranks(run, runtime, model, degrees)
    recompute, of_recompute = _recompute(run)
    workload = Workload(seq_len=run.seq_len, global_batch=global_batch, dtype=dtype)
    by_rate = run.rated and not run.timed
    needed = counted_flops(run, flops, model, workload) if flops and by_rate else None
    seconds, of_rate = _seconds(run, degrees["n_gpus"], workload, cluster, recompute, needed)
    notes = (
        *of_length,
        *of_degrees,
        *of_batch,
        *of_cluster,
        *of_model,
        *of_runtime,
        *of_further,
        *of_traits,
        *of_dtype,
        *of_zero,
        *of_experts,
        *of_rate,
    )
    return Case(
        run=run,
        model=model,
        cluster=cluster,
        workload=workload,
        runtime=runtime,
        layout=Layout(
            **{name: degrees[name] for name in ("dp", "tp", "pp", "cp", "ep", "etp", "vpp")},
            micro_batch=micro_batch,
            zero=zero,
            recompute=recompute,
            shard=_shard(run, degrees["dp"], zero),
            axis_order=runtime.axis_order,
        ),
        step_seconds=seconds,
        peak_bytes=run.peak_bytes,
        failed=failed,
        notes=(*notes, *of_recompute, *_packed(run)),
    )


def _seconds(
    run: Run,
    devices: int,
    workload: Workload,
    cluster: ClusterSpec,
    recompute: Recompute,
    flops: float | None,
) -> tuple[float | None, tuple[str, ...]]:
    """The measured step; by its FLOPs where those are given, since the row tells a rate only."""
    if flops is None:
        return run.step_seconds(devices, workload.global_batch), ()
    full, device = recompute == "full", cluster.accelerator
    return seconds_by_rate(run, flops, device, devices, workload.dtype, full)


def _failed(run: Run) -> bool:
    if run.timed or run.rated or run.peak_bytes is not None:
        return False
    told = " ".join(filter(None, (run.notes, run.step_time_kind, run.file))).lower()
    return re.search(FAILED, told.replace("_", " ")) is not None


def _packed(run: Run) -> tuple[str, ...]:
    packed = re.search(PACKED, (run.notes or "").lower()) is not None
    return ("packed sequences: attention over whole sequences assumed",) if packed else ()


def _with_length(run: Run) -> tuple[Run, tuple[str, ...]]:
    """The row with a sequence length. A throughput hardly depends on it; a time does."""
    if run.seq_len is not None:
        return run, ()
    if (run.tokens_per_s_per_gpu is None and not run.rated) or _printed(run):
        raise UnusableError("seq_len unknown")
    note = f"seq_len unknown, {USUAL_LENGTH} assumed"
    return dataclasses.replace(run, seq_len=USUAL_LENGTH), (note,)


def _degrees(run: Run) -> tuple[dict[str, int], tuple[str, ...]]:
    known = {name: _at_least_one(getattr(run, name)) for name in ("dp", "tp", "pp", "cp")}
    missing = [name for name, degree in known.items() if degree is None]
    product = math.prod(degree or 1 for degree in known.values())
    devices = run.n_gpus
    if devices is None:
        if missing:
            raise UnusableError("n_gpus unknown")
        devices = product
    filled, notes = _filled(run, missing, devices, product)
    degrees = {name: degree or filled[name] for name, degree in known.items()}
    apart = math.prod(degrees.values()) * (run.ep or 1) == devices != math.prod(degrees.values())
    if apart:
        degrees["dp"] *= run.ep or 1
        notes = (*notes, "ep counted apart from dp, multiplied")
    if math.prod(degrees.values()) != devices:
        raise UnusableError("dp*tp*pp*cp is not n_gpus")
    degrees |= {name: _at_least_one(getattr(run, name)) or 1 for name in ("ep", "vpp")}
    if run.n_experts and run.n_experts > 1 and run.ep is None:
        notes = (*notes, "ep unknown, 1 assumed")
    if degrees["pp"] > 1 and run.vpp is None:
        notes = (*notes, "vpp unknown, 1 assumed")
    return {**degrees, "n_gpus": devices}, notes


def _expert_ranks(
    run: Run, runtime: Runtime, model: ModelSpec, degrees: dict[str, int]
) -> tuple[int, tuple[str, ...]]:
    """Ranks that share an expert, and what was assumed."""
    if run.etp is not None or degrees["tp"] == 1 or not model.has_experts:
        return _at_least_one(run.etp) or 1, ()
    about = f"{run.runtime or ''} {run.source or ''}".lower()
    follows = runtime.experts_follow_tp and re.search(UNSHARED_EXPERTS, about) is None
    room = degrees["dp"] * degrees["cp"] * degrees["tp"] % (degrees["ep"] * degrees["tp"]) == 0
    found = degrees["tp"] if follows and room else 1
    return found, (f"etp unknown, {'tp' if found > 1 else '1'} assumed",)


def _at_least_one(degree: int | None) -> int | None:
    """Sources write 0 for a degree that is not used."""
    return None if degree is None else max(1, degree)


def _filled(
    run: Run, missing: list[str], devices: int, product: int
) -> tuple[dict[str, int], tuple[str, ...]]:
    if devices % product:
        raise UnusableError("dp*tp*pp*cp is not n_gpus")
    rest = devices // product
    if len(missing) <= 1:
        notes = tuple(f"{name} unknown, the rest of n_gpus assumed" for name in missing)
        return dict.fromkeys(missing, rest), notes
    about = " ".join(filter(None, (run.runtime, run.source))).lower()
    sharded = bool(run.fsdp) or run.zero_stage == 3 or re.search(FULLY_SHARDED, about) is not None
    sharded = sharded or (run.runtime is not None and nearest(run.runtime) in COPIES)
    if rest > 1 and not (sharded and "dp" in missing):
        raise UnusableError(f"{next(n for n in ('pp', 'tp', 'cp', 'dp') if n in missing)} unknown")
    filled = dict.fromkeys(missing, 1) | ({"dp": rest} if "dp" in missing else {})
    return filled, tuple(f"{name} unknown, {filled[name]} assumed" for name in missing)


def _batch(run: Run, degrees: dict[str, int]) -> tuple[int, int, tuple[str, ...]]:
    """Sequences of a microbatch and of a step, and what was assumed. Raises UnusableError."""
    micro, total, accumulated = run.micro_batch, run.global_batch, run.grad_accum
    dp = degrees["dp"]
    notes: tuple[str, ...] = ()
    if micro is None and total and accumulated and total % (dp * accumulated) == 0:
        micro = total // (dp * accumulated)
    elif micro is None and total and accumulated is None and total % dp == 0:
        micro, notes = _usual_micro_batch(run, degrees, total // dp)
    elif micro is None:
        raise UnusableError("micro_batch unknown")
    if total is None:
        if accumulated is None and (degrees["pp"] > 1 or _printed(run)):
            raise UnusableError("global_batch unknown")
        notes = () if accumulated else ("global_batch unknown, one microbatch assumed",)
        total = dp * micro * (accumulated or 1)
    if total % (dp * micro):
        raise UnusableError("global_batch is no multiple of dp*micro_batch")
    return micro, total, notes


def _usual_micro_batch(
    run: Run, degrees: dict[str, int], sequences: int
) -> tuple[int, tuple[str, ...]]:
    """Sequences of a microbatch of so many on a rank, where nothing tells them."""
    about = f"{run.runtime or ''} {run.source or ''}".lower()
    pp = degrees["pp"]
    if pp > 1 and "torchtitan" in about and sequences % pp == 0:
        return sequences // pp, ("micro_batch unknown, as many as pipeline ranks assumed",)
    return 1, ("micro_batch unknown, 1 assumed",)


def _printed(run: Run) -> bool:
    """A time of a step of unknown size says nothing; a throughput does, roughly."""
    return bool(run.step_time_s or run.step_time_best_s)


def _with_flags(runtime: Runtime, run: Run, tp: int) -> tuple[Runtime, tuple[str, ...]]:
    changes: dict[str, bool] = {}
    notes: tuple[str, ...] = ()
    if tp > 1 and run.sequence_parallel is False and (run.n_experts or 0) > 1:
        notes = ("sequence_parallel off with experts and tp, costed as on",)
        changes["sequence_parallel"] = True
    elif tp > 1 and run.sequence_parallel is not None:
        changes["sequence_parallel"] = run.sequence_parallel
    elif tp > 1 and run.seq_len and run.seq_len % tp:
        notes = ("sequence_parallel unknown, off assumed: tp does not divide the sequence",)
        changes["sequence_parallel"] = False
    elif tp > 1:
        notes = (f"sequence_parallel unknown, {_word(runtime.sequence_parallel)} assumed",)
    if run.flash_attention is not None:
        changes["flash_attention"] = run.flash_attention
    else:
        notes = (*notes, f"flash_attention unknown, {_word(runtime.flash_attention)} assumed")
    if tp > 1 and re.search(OVERLAPS_TP, (run.runtime or "").lower()):
        changes["overlaps_tp"] = True
    told = f"{run.runtime or ''} {run.notes or ''}".lower()
    if re.search(SENDS_ONCE, told):
        changes["sends_tokens_once"] = True
    if re.search(OVERLAPS_EXPERTS, told):
        changes["overlaps_experts"] = True
    changed = {name: value for name, value in changes.items() if getattr(runtime, name) != value}
    return runtime.replace(**changed) if changed else runtime, notes


def _word(flag: bool) -> str:
    return "on" if flag else "off"


def _dtype(run: Run, cluster: ClusterSpec) -> tuple[Dtype, tuple[str, ...]]:
    """The row's format; where it is unknown or the device lacks it, the nearest one it has."""
    device = cluster.accelerator
    text = (run.dtype or "").lower()
    said = next((dtype for pattern, dtype in DTYPES if re.search(pattern, text)), None)
    wanted = SUBSTITUTES[said or "bf16"]
    found = next((dtype for dtype in wanted if dtype in device.peak_flops), None)
    if found is None:
        raise UnusableError(f"no {said or 'bf16'} FLOP/s of {device.name} known")
    if found == said:
        return found, ()
    return found, (f"dtype {run.dtype or 'unknown'} on {device.name}, {found} assumed",)


def _zero(run: Run, runtime: Runtime, pp: int) -> tuple[int, tuple[str, ...]]:
    zero, notes = _stage(run, runtime)
    offered = runtime.pipeline_zero_stages
    if pp > 1 and offered is not None and zero > max(offered):
        kept = max(offered)
        note = f"states under pp of {runtime.name} are kept as zero_stage {kept} keeps them"
        return kept, (*notes, note)
    return zero, notes


def _shard(run: Run, dp: int, zero: int) -> int | None:
    """Ranks that one copy of the states is divided over, None for all of them."""
    if run.shard is None or run.shard == dp or not zero:
        return None
    if dp % run.shard:
        raise UnusableError("dp is no multiple of shard")
    return run.shard


def _stage(run: Run, runtime: Runtime) -> tuple[int, tuple[str, ...]]:
    if run.zero_stage is not None and run.zero_stage > 3:
        raise UnusableError("zero_stage is none of 0 to 3")
    if run.zero_stage is not None:
        return (3 if run.fsdp and not run.zero_stage else run.zero_stage), ()
    about = f"{run.runtime or runtime.name} {run.source or ''}".lower()
    if run.fsdp or (run.fsdp is None and re.search(FULLY_SHARDED, about)):
        zero = 3
    else:
        zero = 1 if re.search(SHARDS_ITS_OPTIMIZER, about) else 0
    return zero, () if run.fsdp else (f"zero_stage unknown, {zero} assumed",)


def _recompute(run: Run) -> tuple[Recompute, tuple[str, ...]]:
    if run.recompute is None:
        return "none", ("recompute unknown, none assumed",)
    word = re.split(r"[^a-z0-9]", run.recompute.lower())[0]
    if word in RECOMPUTE:
        return RECOMPUTE[word], ()
    return "full", (f"recompute {run.recompute!r} read as full",)
