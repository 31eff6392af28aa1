"""A calibration from a profile: the constants that operators, collectives and overlaps determine.

    matmul_efficiency, matmul_depth, attention_efficiency, memory_efficiency, launch_seconds
        robust least squares of log seconds over the operators (planner.calibration.device_model,
        solved by planner.calibration.fitting): 16-bit samples where there are any, as the constants
        are those of 16 bits (on a CPU the commonest format), and the copy that measured the
        memory's bandwidth. What the samples do not know better than the priors is left out, and the
        rest fitted again.
    fabric_efficiency, fabric_latency_seconds      least squares of log seconds over the collectives
    network_efficiency, network_latency_seconds    inside a node, and over those that leave it
    overlap_slowdown     median over the largest hidden collectives (OverlapSample.slowdown)
    loss_passes, layer_host_seconds     of `native` only: the profiler runs the loss and the layers
        of this project's own executor; other software launches others

What a whole step needs besides (step, memory) no operator tells: those constants stay the start's.
low, high: 80 % by the curvature of the fit (overlap_slowdown: 10th and 90th percentile).

A device that the catalog does not know, such as a CPU, has no data sheet: its peaks are the best
rates that the profile reached (planner.spec.local), and the constants relate to those. Its samples
are taken to a rank alone by the slowdown of the ranks that ran beside.

Held out: constants fitted to every other sample of each kind, ordered by work, predict the others.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from planner.calibration.device_model import DeviceModel, can_model
from planner.calibration.fitting import PRIORS, Prior, Priors, solve
from planner.cost.collectives import IN_PLACE, CollectiveTimes, Floats
from planner.spec import catalog, local
from planner.spec.calibration import Calibration, Constant, ConstantName, calibrated
from planner.spec.cluster import Accelerator, ClusterSpec, SharedCores
from planner.spec.documents import InputError
from planner.spec.node import make_cluster
from planner.spec.profile import CollectiveSample, LaunchCost, OperatorSample, Profile
from planner.spec.runtime import Runtime

OWN_RUNTIME = "native"
"""The runtime whose layers and loss the profiler times."""

SIXTEEN = ("bf16", "fp16")
LAUNCH_SPREAD = 0.3
"""Assumed: of the log of launch_seconds around the measured chain of tiny kernels; an operator may
launch several."""

Constants = dict[ConstantName, Constant]
Pairs = list[tuple[float, float]]


def fit_profile(profile: Profile, runtime: Runtime, start: Calibration | None) -> Calibration:
    """The start with the constants that the profile determines. Raises InputError."""
    device = device_of(profile)
    found = {
        **_device_constants(profile, device, runtime, alone(profile, runtime, device)),
        **_links(profile, device, runtime, list(profile.collectives)),
        **_overlap(profile),
        **_host(profile.launch, runtime),
    }
    if not found:
        raise InputError(
            "profile: no matrix product, attention core, bandwidth or collective that the device "
            "and not a launch bounds; profile larger shapes, or calibrate by runs"
        )
    machine = profile.machine
    return Calibration(
        accelerator=device.name,
        runtime=runtime.name,
        constants={**(start.constants if start else {}), **found},
        **({} if start is None else _band(start)),
        runs=0,
        sources=(f"profile of {machine.accelerator or device.name}: {profile.provenance.source}",),
        date=profile.created[:10],
        borrowed_from=start.borrowed_from if start else "",
    )


def _band(start: Calibration) -> dict[str, float]:
    """Nothing was held out: the start's."""
    return {k: getattr(start, k) for k in ("time_low", "time_high", "memory_low", "memory_high")}


def device_of(profile: Profile) -> Accelerator:
    """The profiled device: the catalog's, else one whose peaks are what it reached."""
    machine = profile.machine
    if machine.kind == "cuda" and not machine.accelerator:
        raise InputError(
            "profile: machine.accelerator: empty; name the device that it was taken on, as the "
            "driver calls it or as the catalog does"
        )
    found = catalog.accelerator_of(machine.accelerator or "")
    if found is not None:
        return found
    one = machine.replace(accelerators=1) if machine.kind == "cuda" else machine
    return local.local_cluster(profile.replace(machine=one), 1).accelerator


def alone(profile: Profile, runtime: Runtime, device: Accelerator) -> list[OperatorSample]:
    """The samples that tell of this device under this runtime, as of a rank alone, by work."""
    cores = SharedCores(cores=max(1, profile.machine.cores), slowdown=profile.slowdown)
    factor = cores.factor(profile.busy_ranks) if profile.machine.kind == "cpu" else 1.0
    other = "attention_math" if runtime.flash_attention else "attention"
    losses = () if runtime.name == OWN_RUNTIME else ("cross_entropy", "parallel_cross_entropy")
    found = [
        sample.replace(seconds=sample.seconds / factor)
        for sample in profile.operators
        if sample.kind not in (other, *losses) and can_model(sample, device)
    ]
    return sorted(found, key=lambda s: (s.kind, s.dtype, s.phase, s.seconds))


def _device_constants(
    profile: Profile, device: Accelerator, runtime: Runtime, samples: Sequence[OperatorSample]
) -> Constants:
    """Constants of the operators: what the samples know better than the priors."""
    told = [s for s in samples if s.dtype in _fitted(samples, device)]
    predict = _Predictor(
        DeviceModel.of(told, device, runtime.loss_passes), _copied(profile, device)
    )
    measured = np.array([s.seconds for s in told] + [1.0] * bool(predict.copied))
    if not len(measured):
        return {}
    priors, names = _priors(profile), _names(told, runtime)
    weights = np.ones_like(measured)
    first = solve(predict, measured, names, weights, None, priors)
    known = first.identified(priors)
    return solve(predict, measured, known, weights, first.values, priors).constants


def _fitted(samples: Sequence[OperatorSample], device: Accelerator) -> set[str]:
    """Formats that are fitted: 16 bits where there are any, on a CPU the commonest."""
    often = Counter(str(sample.dtype) for sample in samples)
    sixteen = set(often) & set(SIXTEEN)
    if sixteen and device.kind != "cpu":
        return sixteen
    return {max(often, key=lambda name: often[name])} if often else set()


def _names(samples: Sequence[OperatorSample], runtime: Runtime) -> list[ConstantName]:
    found: list[ConstantName] = ["matmul_efficiency", "matmul_depth", "attention_efficiency"]
    found += ["memory_efficiency", "launch_seconds"]
    lossy = runtime.name == OWN_RUNTIME and any("entropy" in s.kind for s in samples)
    return [*found, "loss_passes"] if lossy else found


def _copied(profile: Profile, device: Accelerator) -> float | None:
    """Share of the data sheet's bandwidth that a copy reached."""
    reached = profile.memory_bandwidth_bytes_per_second
    sheet = device.memory_bandwidth_bytes_per_second
    return reached / sheet if reached and sheet else None


@dataclass(frozen=True, slots=True)
class _Predictor:
    """Seconds of all samples and, last, of the copy over its measured time."""

    model: DeviceModel
    copied: float | None

    def __call__(self, values: Mapping[str, float]) -> Floats:
        seconds = self.model.seconds(values)
        if self.copied is None:
            return seconds
        reached = values.get("memory_efficiency", self.model.defaults["memory_efficiency"])
        return np.append(seconds, self.copied / reached)


def _priors(profile: Profile) -> Priors:
    """The general ones; launch_seconds around the measured chain of tiny kernels."""
    if profile.launch is None:
        return PRIORS
    general = PRIORS["launch_seconds"]
    middle = min(max(profile.launch.kernel_seconds, general.low), general.high)
    made = Prior(middle, general.low, general.high, LAUNCH_SPREAD)
    return {**PRIORS, "launch_seconds": made}


def _overlap(profile: Profile) -> Constants:
    largest = max((sample.message_bytes for sample in profile.overlaps), default=0.0)
    known = [s.slowdown for s in profile.overlaps if s.message_bytes == largest]
    if not known:
        return {}
    limits = PRIORS["overlap_slowdown"]
    low, middle, high = np.clip(np.quantile(known, (0.1, 0.5, 0.9)), limits.low, limits.high)
    return {"overlap_slowdown": Constant(value=float(middle), low=float(low), high=float(high))}


def _host(launch: LaunchCost | None, runtime: Runtime) -> Constants:
    if launch is None or runtime.name != OWN_RUNTIME:
        return {}
    limits = PRIORS["layer_host_seconds"]
    value = min(max(launch.layer_host_seconds, limits.low), limits.high)
    wide = 1 + (launch.spread or 0.0)
    return {"layer_host_seconds": Constant(value=value, low=value / wide, high=value * wide)}


def _links(
    profile: Profile, device: Accelerator, runtime: Runtime, samples: Sequence[CollectiveSample]
) -> Constants:
    """Fabric and network from the collectives of the catalog's node of this device."""
    cluster, samples = _cluster(device, samples)
    if cluster is None:
        return {}
    per_node = cluster.devices_per_node
    inside = [s for s in samples if s.ranks <= per_node and (s.nodes or 1) == 1]
    beyond = [s for s in samples if s not in inside]
    made = _fit_links(("fabric_efficiency", "fabric_latency_seconds"), inside, cluster, runtime, {})
    known = {str(name): constant.value for name, constant in made.items()}
    across = _fit_links(
        ("network_efficiency", "network_latency_seconds"), beyond, cluster, runtime, known
    )
    return {**made, **across}


def _cluster(
    device: Accelerator, samples: Sequence[CollectiveSample]
) -> tuple[ClusterSpec | None, list[CollectiveSample]]:
    """The catalog's cluster that the samples need, and those of them that training runs so."""
    names = [n for n in catalog.list_clusters() if catalog.find_node(n).accelerator == device.name]
    used = [
        s
        for s in samples
        if s.backend == "nccl" and s.message_bytes > 0 and s.in_place in (None, s.op in IN_PLACE)
    ]
    if not names or not used:
        return None, []
    node = catalog.find_node(names[0])
    largest = max(sample.ranks * sample.groups for sample in used)
    return make_cluster(node, device, -(-largest // node.devices_per_node)), used


def _link_seconds(
    samples: Sequence[CollectiveSample],
    cluster: ClusterSpec,
    runtime: Runtime,
    values: dict[str, float],
) -> Floats:
    times = CollectiveTimes(calibrated(values, cluster, runtime)[0], None)
    found = [
        float(times.seconds(s.op, s.ranks, _stride(s, cluster), s.groups, s.message_bytes))
        for s in samples
    ]
    return np.array(found, dtype=np.float64)


def _stride(sample: CollectiveSample, cluster: ClusterSpec) -> int:
    """As noted; a group of a rank per node is a node apart."""
    if sample.stride is None and sample.nodes == sample.ranks:
        return cluster.devices_per_node
    return sample.stride or 1


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
        values = {**known, **dict(zip(map(str, names), np.exp(x).tolist(), strict=True))}
        found = np.log(_link_seconds(samples, cluster, runtime, values)) - logs
        return np.asarray(found, dtype=np.float64)

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


def check_profile(profile: Profile, runtime: Runtime) -> dict[str, Pairs]:
    """(predicted, measured) seconds by what was timed, of samples in the fit and held out.

    Constants fitted to one half predict the other, and the other way round; products of a format
    that is not fitted (fp8, fp32 beside 16 bits) are predicted by the others' constants.
    """
    device = device_of(profile)
    samples = alone(profile, runtime, device)
    halves = samples[::2], samples[1::2]
    whole = _device_constants(profile, device, runtime, samples)
    found: dict[str, Pairs] = {}
    _judge(found, "in the fit", samples, device, runtime, whole)
    for told, asked in (halves, halves[::-1]):
        made = _device_constants(profile, device, runtime, told) if told else {}
        _judge(found, "held out", asked, device, runtime, made)
    _judge(found, "uncalibrated", samples, device, runtime, {})
    _judge_links(found, profile, device, runtime)
    return dict(sorted(found.items()))


def _judge(
    found: dict[str, Pairs],
    how: str,
    samples: Sequence[OperatorSample],
    device: Accelerator,
    runtime: Runtime,
    constants: Constants,
) -> None:
    values = {str(name): constant.value for name, constant in constants.items()}
    seconds = DeviceModel.of(samples, device, runtime.loss_passes).seconds(values)
    for sample, guess in zip(samples, seconds.tolist(), strict=True):
        name = f"{_group(sample)} {sample.dtype}, {how}"
        found.setdefault(name, []).append((guess, sample.seconds))


def _group(sample: OperatorSample) -> str:
    bare = sample.kind.startswith("matmul_") or sample.kind in ("linear", "attention")
    return sample.kind if bare or sample.kind == "attention_math" else "memory-bound"


def _judge_links(
    found: dict[str, Pairs], profile: Profile, device: Accelerator, runtime: Runtime
) -> None:
    cluster, samples = _cluster(device, profile.collectives)
    if cluster is None:
        return
    samples = sorted(samples, key=lambda s: (s.op, s.ranks, s.groups, s.message_bytes))
    halves = samples[::2], samples[1::2]
    whole = _links(profile, device, runtime, samples)
    _link_pairs(found, "in the fit", samples, cluster, runtime, whole)
    for told, asked in (halves, halves[::-1]):
        made = _links(profile, device, runtime, told)
        _link_pairs(found, "held out", asked, cluster, runtime, made)
    _link_pairs(found, "uncalibrated", samples, cluster, runtime, {})


def _link_pairs(
    found: dict[str, Pairs],
    how: str,
    samples: Sequence[CollectiveSample],
    cluster: ClusterSpec,
    runtime: Runtime,
    constants: Constants,
) -> None:
    values = {str(name): constant.value for name, constant in constants.items()}
    guesses: Iterable[float] = _link_seconds(samples, cluster, runtime, values).tolist()
    pairs = [(guess, s.seconds) for guess, s in zip(guesses, samples, strict=True)]
    found.setdefault(f"collectives, {how}", []).extend(pairs)
