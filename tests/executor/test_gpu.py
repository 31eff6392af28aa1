"""The same plans on a GPU as on the CPU. Each test has its CPU twin inside (backend gloo)."""

import pytest
import torch

from executor.processes.launch import held_bytes, run_plan
from planner.spec.measured import Measured
from tests.executor.plans import make_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def twins(request: pytest.FixtureRequest) -> tuple[Measured, Measured]:
    plan = make_plan(request.param, dtype="fp32", micro_batch=8, recompute="full")
    return run_plan(plan, steps=3, backend="nccl"), run_plan(plan, steps=3, backend="gloo")


def test_gpu_and_cpu_train_the_same_model(twins: tuple[Measured, Measured]) -> None:
    gpu, cpu = twins
    assert (gpu.backend, cpu.backend) == ("nccl", "gloo")
    assert gpu.loss == pytest.approx(cpu.loss, rel=1e-4)
    assert gpu.gradient_norm == pytest.approx(cpu.gradient_norm, rel=1e-3)


def test_gpu_timeline_has_the_same_actions(twins: tuple[Measured, Measured]) -> None:
    gpu, cpu = (found.timeline for found in twins)
    assert gpu is not None
    assert cpu is not None
    assert [span.name for span in gpu.spans] == [span.name for span in cpu.spans]
    assert all(span.seconds > 0 for span in gpu.spans)
    assert max(span.end_seconds for span in gpu.spans) <= gpu.step_seconds * 1.05


def test_gpu_peak_comes_from_the_allocator(twins: tuple[Measured, Measured]) -> None:
    gpu, cpu = twins
    assert gpu.peak_bytes[0] > held_bytes(make_plan("llama", dtype="fp32")) * 0.5
    assert gpu.peak_bytes[0] == pytest.approx(cpu.peak_bytes[0], rel=0.5)


def test_bf16_on_a_gpu() -> None:
    plan = make_plan("llama", dtype="bf16", micro_batch=8)
    gpu = run_plan(plan, steps=2, backend="nccl")
    cpu = run_plan(plan, steps=2, backend="gloo")
    assert gpu.loss == pytest.approx(cpu.loss, rel=1e-2)
