"""The cluster `local`: this machine as its profile shows it.

On a CPU every rank is a device: memory is the machine's divided by the ranks, the peak is the
best rate of a matrix product in the profile,

    FLOP/s = 2 m k n / seconds   of forward products, linear or bare, the best one by dtype,

times the slowdown of the ranks that ran beside it, so that the peak is that of one rank alone
(ClusterSpec.shared_cores then slows ranks that share cores). On a GPU the catalog's device of
that name counts, with the memory that the driver reports.

The tier comes from a fit seconds = latency + bytes / bandwidth of the profile:

    send_recv            as it is: one message between two ranks
    all_reduce, n ranks  as a ring of 2 (n - 1) steps, each with bytes / n:
                         latency / (2 (n - 1)) and bandwidth * 2 (n - 1) / n
"""

from typing import Any

from planner.spec import catalog
from planner.spec.cluster import Accelerator, ClusterSpec, SharedCores, Tier
from planner.spec.documents import InputError
from planner.spec.profile import CollectiveFit, OperatorSample, Profile
from planner.spec.provenance import Provenance
from planner.spec.workload import Dtype

PRODUCTS = ("linear", "matmul_nt", "matmul_nn", "matmul_tn")


def local_cluster(profile: Profile, devices: int) -> ClusterSpec:
    """This machine as a cluster of one node with so many devices (ranks on a CPU).

    Raises InputError when the machine has fewer GPUs than devices, or when the profile lacks
    what the cluster needs.
    """
    _check_devices(profile, devices)
    on_cpu = profile.machine.kind == "cpu"
    tier, born = _tier(profile, devices)
    return ClusterSpec(
        name="local",
        accelerator=_cpu(profile, devices) if on_cpu else _gpu(profile),
        nodes=1,
        devices_per_node=devices,
        tiers=(tier,),
        backend="gloo" if on_cpu else "nccl",
        shared_cores=_shared_cores(profile) if on_cpu else None,
        provenance=born,
    )


def _check_devices(profile: Profile, devices: int) -> None:
    if devices < 1:
        raise InputError(f"local: {devices} devices; ask for 1 or more")
    machine = profile.machine
    if machine.kind == "cuda" and devices > machine.accelerators:
        raise InputError(
            f"local: asked for {devices} devices, the profiled machine has "
            f"{machine.accelerators}; ask for fewer, or profile the machine that has them"
        )


def _shared_cores(profile: Profile) -> SharedCores:
    return SharedCores(cores=profile.machine.cores, slowdown=profile.slowdown)


def _cpu(profile: Profile, devices: int) -> Accelerator:
    alone = _shared_cores(profile).factor(profile.busy_ranks)
    device = _measured(profile, "cpu", profile.machine.memory_bytes / devices, alone)
    return device.replace(notes=f"one of {devices} ranks on {profile.machine.cores} cores")


def _gpu(profile: Profile) -> Accelerator:
    machine = profile.machine
    known = catalog.accelerator_of(machine.accelerator or "")
    if known is None:
        if machine.accelerator_memory_bytes is None:
            raise InputError("profile: machine.accelerator_memory_bytes: missing; profile again")
        return _measured(profile, "cuda", machine.accelerator_memory_bytes, alone=1.0)
    if machine.accelerator_memory_bytes is None:
        return known
    provenance = {**known.provenance, "memory_bytes": profile.provenance}
    return known.replace(memory_bytes=machine.accelerator_memory_bytes, provenance=provenance)


def _measured(profile: Profile, kind: str, memory_bytes: float, alone: float) -> Accelerator:
    """A device known only from the profile: its peaks are rates that were reached."""
    rates = {dtype: rate * alone for dtype, rate in _linear_rates(profile).items()}
    fields: dict[str, Any] = {"memory_bytes": memory_bytes}
    fields |= {"peak_flops": rates, "matmul_flops": rates, "matmul_efficiency": 1.0}
    if bandwidth := profile.memory_bandwidth_bytes_per_second:
        fields |= {"memory_bandwidth_bytes_per_second": bandwidth, "memory_efficiency": 1.0}
    guessed = Provenance(birth="assumed", source="default of the class")
    provenance = {
        **dict.fromkeys(("attention_efficiency", "memory_efficiency", "launch_seconds"), guessed),
        **dict.fromkeys(fields, profile.provenance),
    }
    name = profile.machine.accelerator or profile.machine.processor
    return Accelerator.model_validate(
        {"name": name, "kind": kind, "provenance": provenance, **fields}
    )


def _linear_rates(profile: Profile) -> dict[Dtype, float]:
    """The best FLOP/s of a forward matrix product, by dtype."""
    best: dict[Dtype, float] = {}
    for sample in profile.operators:
        if sample.kind in PRODUCTS and sample.phase == "forward":
            best[sample.dtype] = max(best.get(sample.dtype, 0.0), _rate(sample))
    if not best:
        raise InputError("profile: operators: no forward `linear` sample; profile again")
    return best


def _rate(sample: OperatorSample) -> float:
    dims = sample.dims
    return 2.0 * dims["m"] * dims["k"] * dims["n"] / sample.seconds


def _tier(profile: Profile, devices: int) -> tuple[Tier, dict[str, Provenance]]:
    fit = _link_fit(profile, devices)
    if fit is None:
        return _no_link(profile, devices)
    steps, share = (1, 1.0)
    if fit.op == "all_reduce":
        steps, share = 2 * (fit.ranks - 1), 2 * (fit.ranks - 1) / fit.ranks
    tier = Tier(
        name="local",
        devices=devices,
        bandwidth_bytes_per_second=fit.bandwidth_bytes_per_second * share,
        latency_seconds=fit.latency_seconds / steps,
    )
    source = f"{profile.provenance.source}: {fit.op} of {fit.ranks} ranks, {fit.groups} at once"
    born = Provenance(birth="fitted", source=source, date=profile.provenance.date)
    fields = ("bandwidth_bytes_per_second", "latency_seconds")
    return tier, {f"local.{field}": born for field in fields}


def _link_fit(profile: Profile, devices: int) -> CollectiveFit | None:
    """send_recv before all_reduce; the one that keeps most of the devices busy."""
    backend = "gloo" if profile.machine.kind == "cpu" else "nccl"
    usable = [
        fit
        for fit in profile.fits
        if fit.backend == backend
        and fit.op in ("send_recv", "all_reduce")
        and fit.ranks * fit.groups <= max(devices, 2)
    ]
    return max(usable, key=_preference, default=None)


def _preference(fit: CollectiveFit) -> tuple[bool, int]:
    return fit.op == "send_recv", fit.ranks * fit.groups


def _no_link(profile: Profile, devices: int) -> tuple[Tier, dict[str, Provenance]]:
    if devices > 1:
        raise InputError(
            f"profile: fits: no send_recv or all_reduce fit over at most {devices} ranks; "
            f"profile the collectives of this machine with 2 ranks"
        )
    born = Provenance(birth="assumed", source="a single device sends nothing")
    tier = Tier(name="local", devices=1, bandwidth_bytes_per_second=1e9, latency_seconds=0.0)
    return tier, {"local.bandwidth_bytes_per_second": born}
