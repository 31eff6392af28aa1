"""Operator times: measured where measured, interpolated near by, roofline elsewhere."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.matmul import share_of_peak
from planner.cost.operators import CAST_BYTES, OperatorTimes, interpolate
from planner.graph.operator import Operator, Split
from planner.spec.documents import InputError
from planner.spec.profile import Machine, OperatorSample, Phase, Profile
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


SHAPES = st.tuples(*[st.integers(1, 8192)] * 3)


def roofline(operator: Operator, phase: Phase, dtype: str = "bf16", **device: object) -> float:
    formats = {"bf16": "100TFLOP/s", "fp8": "200TFLOP/s", "fp4": "400TFLOP/s"}
    peaks = {"peak_flops": formats}
    cluster = gpu_cluster(**(peaks | device))
    return OperatorTimes(cluster, dtype, True, None).estimate(operator, phase).seconds


@given(SHAPES, st.sampled_from(["forward", "backward"]), st.floats(1, 10))
def test_a_better_device_is_never_slower(
    shape: tuple[int, int, int], phase: Phase, factor: float
) -> None:
    operator, base = linear(*shape), {"matmul_efficiency": 0.1, "memory_efficiency": 0.1}
    base |= {"multiprocessors": 108, "launch_seconds": 1e-5}
    before = roofline(operator, phase, **base)
    for better in (
        {"matmul_efficiency": 0.1 * factor},
        {"memory_efficiency": 0.1 * factor},
        {"memory_bandwidth": f"{factor}TB/s"},
        {"peak_flops": {"bf16": 1e14 * factor}},
        {"launch_seconds": 1e-5 / factor},
    ):
        assert roofline(operator, phase, **(base | better)) <= before * (1 + 1e-12)


@given(SHAPES, st.sampled_from([64, 128, 80, 108, 96]), st.floats(1, 10))
def test_attention_follows_its_own_efficiency(
    shape: tuple[int, int, int], head_dim: int, factor: float
) -> None:
    core = attention(64, head_dim)
    slow, quick = (roofline(core, "forward", attention_efficiency=0.1 * f) for f in (1.0, factor))
    assert quick <= slow * (1 + 1e-12)


def attention(heads: int, head_dim: int) -> Operator:
    dims = {"batch": 1, "seq": 2048, "heads": heads, "kv_heads": heads, "head_dim": head_dim}
    return Operator(
        name="core",
        kind="attention",
        dims=tuple(sorted(dims.items())),
        forward_flops=4 * 2048**2 * heads * head_dim,
        kernel_share=0.5,
    )


def test_heads_of_odd_width_leave_the_tensor_cores() -> None:
    """Per FLOP, a head of 108 takes six times as long as one of 216."""
    odd, even = (
        roofline(attention(heads, width), "forward", launch_seconds=0.0)
        for heads, width in ((64, 108), (32, 216))
    )
    assert odd == pytest.approx(6 * even)


def test_a_product_uses_the_share_of_its_shape_forward_and_backward() -> None:
    device = {"multiprocessors": 108, "launch_seconds": 0.0, "matmul_efficiency": 1.0}
    m, k, n = 300, 8192, 5000
    operator = linear(m, k, n)
    flops, shares = (
        operator.forward_flops,
        [share_of_peak(*shape, 108) for shape in ((m, n, k), (m, k, n), (k, n, m))],
    )
    assert roofline(operator, "forward", **device) == pytest.approx(flops / 1e14 / shares[0])
    assert roofline(operator, "backward", **device) == pytest.approx(
        flops / 1e14 * (1 / shares[1] + 1 / shares[2])
    )


def test_loss_passes_scale_what_the_loss_moves() -> None:
    loss = Operator(
        name="loss",
        kind="cross_entropy",
        dims=(("rows", 4096), ("vocab", 50_000)),
        forward_bytes=10**9,
    )
    cluster = gpu_cluster(launch_seconds=0.0)
    two, six = (
        OperatorTimes(cluster, "bf16", True, None, passes).estimate(loss, "forward").seconds
        for passes in (2.0, 6.0)
    )
    assert six == pytest.approx(3 * two)


@pytest.mark.parametrize(("dtype", "share"), [("fp8", 0.51), ("fp4", 0.26)])
def test_narrow_formats_speed_up_products_of_layers_alone(dtype: str, share: float) -> None:
    product, core = linear(8192, 8192, 8192), attention(64, 128)
    assert roofline(product, "forward", dtype) < roofline(product, "forward") * share
    assert roofline(core, "forward", dtype) == roofline(core, "forward")
    words = replace(product, splits=(Split("n", "vocabulary", "tp"),))
    for phase in get_args(Phase):
        assert roofline(words, phase, dtype) == roofline(product, phase)


@given(
    st.integers(1024, 16384),
    st.integers(4096, 16384),
    st.integers(4096, 16384),
    st.sampled_from(["forward", "backward"]),
)
def test_fp4_is_never_slower_than_fp8(m: int, k: int, n: int, phase: Phase) -> None:
    """Its casts move 1.125 bytes an element more; a product that arithmetic binds saves more."""
    keeps = replace(linear(m, k, n), saved_bytes=2 * m * k)
    assert roofline(keeps, phase, "fp4") <= roofline(keeps, phase, "fp8")


@given(st.sampled_from([64, 512]), st.sampled_from([64, 4096]), st.sampled_from([32, 1024]))
def test_operands_are_brought_to_a_narrow_format_once(m: int, k: int, n: int) -> None:
    """The input by the product that keeps it for all that share it, the gradient by each."""
    peaks = {"bf16": "100TFLOP/s", "fp8": "200TFLOP/s", "fp4": "400TFLOP/s"}
    cluster = gpu_cluster(peak_flops=peaks)
    rate = 1e12 * cluster.accelerator.memory_efficiency
    shares, keeps = linear(m, k, n), replace(linear(m, k, n), saved_bytes=2 * m * k)
    for dtype, cast in (("bf16", 0.0), *CAST_BYTES.items()):
        times = OperatorTimes(cluster, dtype, True, None)
        first, second = (times.estimate(each, "forward").seconds for each in (keeps, shares))
        assert first - second == pytest.approx(cast * m * k / rate)
        back = [times.estimate(each, "backward").seconds for each in (keeps, shares)]
        assert back[0] == back[1] > cast * m * n / rate
