"""Question: the words of a user (names, paths, numbers) made into what the search needs."""

from collections.abc import Iterator

from planner.cost.blocks import Blocks
from planner.schedule import orders
from planner.search.legality import mesh_problems, runtime_problems
from planner.search.space import deepest
from planner.search.stage_split import usual_counts
from planner.simulator.prediction import planned
from planner.spec import catalog, documents, local, runnable
from planner.spec.calibration import Calibration, calibrate
from planner.spec.cluster import ClusterSpec
from planner.spec.divisors import not_divided
from planner.spec.documents import InputError
from planner.spec.layout import Layout, even_counts, make_stages
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.profile import Profile
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload


def ask(
    model: str | ModelSpec,
    cluster: str | ClusterSpec,
    seq_len: int,
    global_batch: int,
    dtype: str | None = None,
    runtime: str | Runtime | None = None,
    profile: str | Profile | None = None,
    calibration: str | Calibration | None = None,
) -> Blocks:
    """Everything that a question names, found and checked. Raises InputError.

    cluster "local" (or "local:4" for four ranks) is the profiled machine. Without a dtype it is
    fp32 on CPUs, bf16 where the accelerator has it, else fp16; without a runtime it is `native`
    on the local machine and `megatron-core` elsewhere. calibration: a document or its path, or
    "none"; without one the nearest of the catalog, if the device is the catalog's own.
    """
    profile = documents.load(Profile, profile) if isinstance(profile, str) else profile
    is_local = isinstance(cluster, str) and cluster.partition(":")[0] == "local"
    if isinstance(cluster, str):
        cluster = _local(cluster, profile) if is_local else catalog.find_cluster(cluster)
    if isinstance(runtime, str) or runtime is None:
        runtime = catalog.find_runtime(runtime or ("native" if is_local else "megatron-core"))
    model = catalog.find_model(model) if isinstance(model, str) else model
    workload = _workload(seq_len, global_batch, dtype or _dtype(cluster))
    _check_model(model, workload, runtime)
    _check_lengths(model, workload)
    _check_profile(cluster, profile)
    found = find_calibration(calibration, cluster, runtime)
    if found is not None:
        cluster, runtime = calibrate(found, cluster, runtime)
    return Blocks(model, cluster, workload, runtime, profile, calibration=found)


def find_calibration(
    asked: str | Calibration | None, cluster: ClusterSpec, runtime: Runtime
) -> Calibration | None:
    """The calibration that a question means, made for its device and runtime. Raises InputError.

    A device that is not the catalog's own is somebody's measurement, or calibrated already.
    """
    device = cluster.accelerator
    if asked is None:
        known = device.name in catalog.list_accelerators()
        own = known and catalog.find_accelerator(device.name) == device
        return catalog.find_calibration(device, runtime.name) if own else None
    if asked == "none":
        return None
    found = documents.load(Calibration, asked) if isinstance(asked, str) else asked
    if (found.accelerator, found.runtime) == (device.name, runtime.name):
        return found
    return found.borrowed_for(device.name, runtime.name)


def _local(text: str, profile: Profile | None) -> ClusterSpec:
    if profile is None:
        return catalog.find_cluster("local")
    _, colon, ranks = text.partition(":")
    if colon and not (ranks.isdecimal() and int(ranks)):
        raise InputError(f"cluster {text!r}: {ranks!r} is not a number of ranks; write local:4")
    machine = profile.machine
    devices = int(ranks) if colon else max(1, machine.accelerators or machine.cores)
    return local.local_cluster(profile, devices)


def _dtype(cluster: ClusterSpec) -> str:
    peaks = [str(name) for name in cluster.accelerator.peak_flops]
    if cluster.accelerator.kind == "cpu":
        return "fp32"
    return next((name for name in ("bf16", "fp16", "fp32") if name in peaks), "bf16")


def _workload(seq_len: int, global_batch: int, dtype: str) -> Workload:
    values = {"seq_len": seq_len, "global_batch": global_batch, "dtype": dtype}
    return documents.parse(Workload, values, "workload")


def _check_model(model: ModelSpec, workload: Workload, runtime: Runtime) -> None:
    if runtime.models == "any":
        return
    found = list(runnable.problems(model, workload.seq_len))
    if found:
        raise InputError(
            f"runtime {runtime.name!r} runs {runnable.RUNNABLE} only; {model.name}: "
            f"{'; '.join(found)}; choose another --runtime"
        )


def _check_lengths(model: ModelSpec, workload: Workload) -> None:
    for stack in model.stacks:
        spec = stack.embedding
        if spec.convolutions and model.encoder is not None:
            continue  # the encoder's tokens are the source's
        if spec.convolutions and workload.seq_len != spec.max_positions:
            raise InputError(
                f"--seq-len {workload.seq_len}: {model.name} makes {spec.max_positions} vectors of "
                f"every input; write --seq-len {spec.max_positions}"
            )
        if workload.seq_len > spec.max_positions and spec.positions != "none":
            raise InputError(
                f"--seq-len {workload.seq_len} is more than the {spec.max_positions} positions "
                f"that the {stack.name} of {model.name} has; choose at most that"
            )


def _check_profile(cluster: ClusterSpec, profile: Profile | None) -> None:
    if profile is None or (profile.machine.kind == "cpu") == (cluster.accelerator.kind == "cpu"):
        return
    raise InputError(
        f"--profile was taken on a {profile.machine.kind} machine, the cluster {cluster.name!r} "
        f"has {cluster.accelerator.kind} devices; profile one of its devices, or leave it out"
    )


def plan_of_layout(blocks: Blocks, text: str) -> Plan:
    """The plan that a `--layout` describes, predicted. Raises InputError when it is not legal."""
    text, recomputed = _take_recomputed(text)
    layout, counts = Layout.parse(text)
    if "axis_order" not in text:
        layout = layout.replace(axis_order=blocks.runtime.axis_order)
    counts = counts or _usual_counts(blocks, layout.pp * layout.vpp)
    check_layout(blocks, layout, counts)
    if recomputed is not None:
        _check_recomputed(layout, counts, recomputed)
    return planned(blocks, layout, make_stages(layout, counts, recomputed))


def _take_recomputed(text: str) -> tuple[str, tuple[int, ...] | None]:
    """A layout without its `recomputed=3,3,2,0`, and those numbers."""
    words = text.split()
    found = [word for word in words if word.startswith("recomputed=")]
    rest = " ".join(word for word in words if word not in found)
    if not found:
        return rest, None
    numbers = found[-1].partition("=")[2].split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--layout: {found[-1]!r}; write layers per stage: recomputed=3,3,2,0")
    return rest, tuple(int(number) for number in numbers)


def _check_recomputed(layout: Layout, counts: tuple[int, ...], again: tuple[int, ...]) -> None:
    if layout.recompute == "none":
        raise InputError("--layout: recomputed= needs recompute=full or recompute=selective")
    if len(again) != len(counts) or any(r > n for r, n in zip(again, counts, strict=False)):
        raise InputError(
            f"--layout: recomputed={','.join(map(str, again))} must be {len(counts)} numbers, each "
            f"at most the layers of its stage ({','.join(map(str, counts))})"
        )


def _usual_counts(blocks: Blocks, stages: int) -> tuple[int, ...]:
    """As the runtime splits, or evenly where that would leave a stage empty."""
    usual = usual_counts(blocks.model, blocks.runtime, stages)
    return usual if min(usual) else even_counts(blocks.model.layers, stages)


def check_layout(blocks: Blocks, layout: Layout, counts: tuple[int, ...]) -> None:
    """Raise InputError with every reason why a layout cannot run."""
    problems = list(_problems(blocks, layout, counts))
    if problems:
        raise InputError("\n".join(f"--layout: {problem}" for problem in problems))


def _problems(blocks: Blocks, layout: Layout, counts: tuple[int, ...]) -> Iterator[str]:
    model, workload = blocks.model, blocks.workload
    if layout.devices > blocks.cluster.devices:
        yield f"needs {layout.devices} devices, the cluster has {blocks.cluster.devices}"
    yield from mesh_problems(model, workload, blocks.runtime, layout)
    yield from runtime_problems(blocks.runtime, layout)
    if layout.pp > deepest(model) and model.encoder is not None:
        yield f"pp={layout.pp}: stages of an encoder and decoder are not costed yet; pp=1"
    stages = layout.pp * layout.vpp
    if len(counts) != stages or sum(counts) != model.layers:
        name = "pp" if layout.vpp == 1 else "pp*vpp"
        yield (
            f"stages={','.join(map(str, counts))} must be {stages} numbers ({name}) that sum to "
            f"the model's {model.layers} layers"
        )
    elif blocks.runtime.equal_stages and len(set(counts)) > 1:
        yield (
            f"stages={','.join(map(str, counts))}: the stages of runtime {blocks.runtime.name!r} "
            f"are equal; leave it out"
        )
    per_microbatch = layout.dp * layout.micro_batch
    if workload.global_batch % per_microbatch:
        said = f"dp*micro_batch={per_microbatch}"
        yield not_divided(said, per_microbatch, "global_batch", workload.global_batch)
        return
    microbatches = workload.global_batch // per_microbatch
    name = (
        orders.ONE_CHUNK.get(layout.schedule, layout.schedule)
        if layout.vpp > 1
        else layout.schedule
    )
    if layout.pp > 1 and (found := orders.problem(name, layout.pp, layout.vpp, microbatches)):
        yield found


def read_counts(text: str) -> list[int]:
    """`8,16,32` as numbers, ascending and each once. Raises InputError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--devices: {text!r}; write numbers of devices: 8,16,32")
    return sorted({int(word) for word in words})
