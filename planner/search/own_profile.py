"""A calibration from a profile: the constants that operators and collectives determine.

    matmul_efficiency     median over matrix products of FLOPs / (seconds * peak * share_of_peak)
    attention_efficiency  the same over causal attention cores, of the products a mask leaves
    memory_efficiency     measured bandwidth / data sheet
    fabric_efficiency, fabric_latency_seconds      least squares of log seconds over the collectives
    network_efficiency                             inside a node, and over those that leave it

Only samples that the arithmetic bounds count (FLOPs / peak > bytes / bandwidth), less one launch.
What a whole step needs (host, loss, memory) no operator tells: those constants stay the start's.
low, high: 10th and 90th percentile over the samples.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from planner.cost.collectives import CollectiveTimes, Floats
from planner.cost.matmul import share_of_peak
from planner.cost.operators import peak_flops
from planner.search.fitting import PRIORS
from planner.spec import catalog
from planner.spec.calibration import Calibration, Constant, ConstantName, calibrated
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import InputError
from planner.spec.node import make_cluster
from planner.spec.profile import CollectiveSample, OperatorSample, Profile
from planner.spec.runtime import Runtime
from planner.spec.workload import DTYPE_BYTES, stored_dtype

BACKWARD_OF_FLASH = 2.5
"""Products of a flash backward over those of its forward (planner.graph.attention)."""

Constants = dict[ConstantName, Constant]


def fit_profile(profile: Profile, runtime: Runtime, start: Calibration | None) -> Calibration:
    """The start with the constants that the profile determines. Raises InputError."""
    device = _device(profile)
    found = {
        **_ratio("matmul_efficiency", [_matmul(s, device) for s in profile.operators]),
        **_ratio("attention_efficiency", [_attention(s, device) for s in profile.operators]),
        **_memory(profile, device),
        **_links(profile, device, runtime),
    }
    if not found:
        raise InputError(
            "profile: no matrix product, attention core, bandwidth or collective that the device "
            "and not a launch bounds; profile larger shapes, or calibrate by runs"
        )
    return Calibration(
        accelerator=device.name,
        runtime=runtime.name,
        constants={**(start.constants if start else {}), **found},
        **({} if start is None else _band(start)),
        runs=0,
        sources=(f"profile of {profile.machine.accelerator}: {profile.provenance.source}",),
        date=profile.created[:10],
        borrowed_from=start.borrowed_from if start else "",
    )


def _band(start: Calibration) -> dict[str, float]:
    """Nothing was held out: the start's."""
    return {k: getattr(start, k) for k in ("time_low", "time_high", "memory_low", "memory_high")}


def _device(profile: Profile) -> Accelerator:
    machine = profile.machine
    if machine.kind == "cpu":
        raise InputError(
            "profile: of a CPU, which has no data sheet to calibrate; pass it as --profile to plan"
        )
    found = catalog.accelerator_of(machine.accelerator or "")
    if found is None:
        raise InputError(
            f"profile: the catalog has no {machine.accelerator!r}; pass the profile as --profile, "
            f"or add the device (CONTRIBUTING.md)"
        )
    return found


def _ratio(name: ConstantName, ratios: Sequence[float | None]) -> Constants:
    """The median of what samples say, inside the limits of the constant."""
    known = [each for each in ratios if each is not None]
    if not known:
        return {}
    limits = PRIORS[name]
    low, middle, high = np.clip(np.quantile(known, (0.1, 0.5, 0.9)), limits.low, limits.high)
    return {name: Constant(value=float(middle), low=float(low), high=float(high))}


def _matmul(sample: OperatorSample, device: Accelerator) -> float | None:
    """Efficiency that one matrix product says, None if arithmetic does not bound it."""
    if sample.kind != "linear":
        return None
    m, k, n = (sample.dims[name] for name in ("m", "k", "n"))
    moved = (m * k + k * n + m * n) * DTYPE_BYTES[stored_dtype(sample.dtype)]
    shapes = [(m, n, k)] if sample.phase == "forward" else [(m, k, n), (k, n, m)]
    cores = device.multiprocessors
    shares = [share_of_peak(*s, cores) if cores else 1.0 for s in shapes]
    flops = 2.0 * m * k * n
    needed = sum(flops / share for share in shares)
    return _efficiency(sample, device, needed, flops * len(shapes), moved * len(shapes))


def _attention(sample: OperatorSample, device: Accelerator) -> float | None:
    """Efficiency that one causal attention core says."""
    if sample.kind != "attention":
        return None
    dims = sample.dims
    rows = dims["batch"] * dims["seq"]
    flops = 4.0 * rows * dims["heads"] * dims["head_dim"] * (dims["seq"] + 1) / 2
    flops *= 1.0 if sample.phase == "forward" else BACKWARD_OF_FLASH
    width = 2 * (dims["heads"] + dims["kv_heads"]) * dims["head_dim"]
    moved = rows * width * DTYPE_BYTES[stored_dtype(sample.dtype)]
    return _efficiency(sample, device, flops, flops, moved)


def _efficiency(
    sample: OperatorSample, device: Accelerator, needed: float, flops: float, moved: float
) -> float | None:
    if sample.dtype not in device.peak_flops:
        return None
    peak = peak_flops(device, stored_dtype(sample.dtype))
    seconds = sample.seconds - device.launch_seconds
    bandwidth = device.memory_bandwidth_bytes_per_second
    bounded = bandwidth is not None and flops / peak > moved / bandwidth
    return needed / (seconds * peak) if bounded and seconds > 0 else None


def _memory(profile: Profile, device: Accelerator) -> Constants:
    measured, sheet = (
        profile.memory_bandwidth_bytes_per_second,
        device.memory_bandwidth_bytes_per_second,
    )
    return _ratio("memory_efficiency", [measured / sheet] if measured and sheet else [])


def _links(profile: Profile, device: Accelerator, runtime: Runtime) -> Constants:
    """Fabric and network from the collectives of the catalog's node of this device."""
    names = [n for n in catalog.list_clusters() if catalog.find_node(n).accelerator == device.name]
    samples = [s for s in profile.collectives if s.backend == "nccl" and s.message_bytes > 0]
    if not names or not samples:
        return {}
    node = catalog.find_node(names[0])
    inside = [s for s in samples if s.ranks <= node.devices_per_node]
    beyond = [s for s in samples if s.ranks > node.devices_per_node]
    largest = max(sample.ranks for sample in samples)
    cluster = make_cluster(node, device, -(-largest // node.devices_per_node))
    made = _fit_links(("fabric_efficiency", "fabric_latency_seconds"), inside, cluster, runtime, {})
    known = {str(name): constant.value for name, constant in made.items()}
    return {**made, **_fit_links(("network_efficiency",), beyond, cluster, runtime, known)}


def _fit_links(
    names: tuple[ConstantName, ...],
    samples: Sequence[CollectiveSample],
    cluster: ClusterSpec,
    runtime: Runtime,
    known: dict[str, float],
) -> Constants:
    if len(samples) < len(names):
        return {}
    priors = [PRIORS[name] for name in names]
    logs = np.log([sample.seconds for sample in samples])

    def residuals(x: Floats) -> Floats:
        values = {**known, **dict(zip(map(str, names), np.exp(x), strict=True))}
        times = CollectiveTimes(calibrated(values, cluster, runtime)[0], None)
        found = [float(times.seconds(s.op, s.ranks, 1, s.groups, s.message_bytes)) for s in samples]
        return np.asarray(np.log(found) - logs, dtype=np.float64)

    middle, low, high = (
        np.log([getattr(prior, side) for prior in priors]) for side in ("middle", "low", "high")
    )
    done = least_squares(residuals, middle, bounds=(low, high), loss="soft_l1", f_scale=0.1)
    noise = max(float(np.std(done.fun)), 1e-3)
    shape = done.jac.T @ done.jac / noise**2
    sigma = np.sqrt(np.diag(np.linalg.pinv(shape + 1e-9 * np.eye(len(names)))))
    return {
        name: Constant(value=float(np.exp(x)), low=float(np.exp(x - s)), high=float(np.exp(x + s)))
        for name, x, s in zip(names, done.x, 1.2816 * sigma, strict=True)
    }
