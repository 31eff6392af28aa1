"""Operator times: measured where measured, interpolated near by, roofline elsewhere."""

import pytest

from planner.cost.operators import OperatorTimes, interpolate
from planner.graph.operator import Operator
from planner.spec.documents import InputError
from planner.spec.profile import Machine, OperatorSample, Profile
from planner.spec.provenance import Provenance
from tests.examples import cpu_cluster, gpu_cluster


def linear(m: int, k: int, n: int) -> Operator:
    flops = 2 * m * k * n
    return Operator(
        name="linear",
        kind="linear",
        dims=(("bias", 0), ("k", k), ("m", m), ("n", n)),
        forward_flops=flops,
        input_gradient_flops=flops,
        weight_gradient_flops=flops,
        forward_bytes=2 * (m * k + k * n + m * n),
    )


def measured(m: int, k: int, n: int, seconds: float) -> OperatorSample:
    return OperatorSample(
        kind="linear",
        dims={"m": m, "k": k, "n": n, "bias": 0},
        dtype="fp32",
        phase="forward",
        seconds=seconds,
        spread=0.0,
        repeats=5,
    )


def profile(*samples: OperatorSample) -> Profile:
    return Profile(
        machine=Machine(kind="cpu", processor="x", cores=2, memory_bytes=1e9),
        created="now",
        operators=samples,
        provenance=Provenance(birth="measured", source="test"),
    )


def test_a_measured_shape_is_itself() -> None:
    times = OperatorTimes(cpu_cluster(2), "fp32", True, profile(measured(64, 32, 32, 0.5)))
    assert times.estimate(linear(64, 32, 32), "forward") == (0.5, "measured")


def test_between_equally_efficient_shapes_time_follows_the_flops() -> None:
    samples = [measured(m, 32, 32, m * 1e-6) for m in (16, 64, 256)]
    assert interpolate(samples, {"m": 128, "k": 32, "n": 32, "bias": 0}) == pytest.approx(128e-6)
    times = OperatorTimes(cpu_cluster(2), "fp32", True, profile(*samples))
    assert times.estimate(linear(128, 32, 32), "forward").birth == "fitted"


def test_another_dtype_is_not_measured() -> None:
    times = OperatorTimes(gpu_cluster(), "bf16", True, profile(measured(64, 32, 32, 0.5)))
    assert times.estimate(linear(64, 32, 32), "forward").birth == "assumed"


def test_roofline_takes_the_slower_side() -> None:
    cluster = gpu_cluster(matmul_efficiency=0.5, memory_efficiency=0.5, launch_seconds=1e-6)
    times = OperatorTimes(cluster, "bf16", True, None)
    large, thin = linear(4096, 4096, 4096), linear(1, 4096, 4096)
    assert times.estimate(large, "forward").seconds == pytest.approx(
        1e-6 + large.forward_flops / 50e12
    )
    assert times.estimate(thin, "forward").seconds == pytest.approx(
        1e-6 + thin.forward_bytes / 5e11
    )


def test_a_dtype_without_peak_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'fp8' \(known: bf16\)"):
        OperatorTimes(gpu_cluster(), "fp8", True, None).estimate(linear(8, 8, 8), "forward")
