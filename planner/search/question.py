"""Question: the words of a user (names, paths, numbers) made into what the search needs."""

from planner.calibration.chosen import chosen_calibration
from planner.cost.blocks import Blocks
from planner.spec import catalog, documents, local, runnable
from planner.spec.calibration import Calibration, calibrate
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import InputError
from planner.spec.lengths import check_length
from planner.spec.model import ModelSpec
from planner.spec.profile import Profile
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload

MOST_SEQUENCES = 2**20
"""Assumed: per step, far beyond what is trained; microbatches are replayed one by one."""


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
    _check_batch(global_batch)
    workload = _workload(seq_len, global_batch, dtype or _dtype(cluster))
    _check_model(model, workload, runtime)
    check_length(model, workload.seq_len)
    _check_profile(cluster, profile)
    found = chosen_calibration(calibration, cluster, runtime)
    if found is not None:
        cluster, runtime = calibrate(found, cluster, runtime)
    return Blocks(model, cluster, workload, runtime, profile, calibration=found)


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


def _check_batch(global_batch: int) -> None:
    if global_batch > MOST_SEQUENCES:
        raise InputError(
            f"--global-batch {global_batch}: choose at most {MOST_SEQUENCES:,} sequences per step"
        )


def _check_profile(cluster: ClusterSpec, profile: Profile | None) -> None:
    if profile is None or (profile.machine.kind == "cpu") == (cluster.accelerator.kind == "cpu"):
        return
    raise InputError(
        f"--profile was taken on a {profile.machine.kind} machine, the cluster {cluster.name!r} "
        f"has {cluster.accelerator.kind} devices; profile one of its devices, or leave it out"
    )
