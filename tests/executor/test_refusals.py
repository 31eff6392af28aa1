from typing import Any

import pytest

from executor import refusals
from executor.options import RunOptions, read_options
from planner.spec.documents import InputError
from planner.spec.layout import Layout, make_stages
from planner.spec.plan import Plan
from planner.spec.profile import Machine
from planner.spec.workload import Workload
from tests.examples import gpu_cluster, llama_like
from tests.executor.plans import make_plan


def machine(gpus: int = 0) -> Machine:
    return Machine(
        kind="cuda" if gpus else "cpu",
        processor="some",
        cores=2,
        memory_bytes=8 * 2**30,
        accelerators=gpus,
        accelerator_memory_bytes=80.0 * 2**30 if gpus else None,
    )


LONGER = Workload(seq_len=20, global_batch=24, dtype="fp64")


def changed(layout: dict[str, Any], **fields: Any) -> Plan:
    plan = make_plan("llama")
    new = Layout.model_validate(layout)
    stages = make_stages(new, (4,) if new.pp * new.vpp == 1 else (2, 2))
    return plan.replace(layout=new, stages=stages, **fields)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            changed({"cp": 4}, workload=LONGER),
            "cp=4 with cp_style=ring and tp=1 cuts sequences in 8 parts, .* not divide seq_len=20",
        ),
        (changed({"cp": 2, "tp": 4}, workload=LONGER), "cp=2 .* tp=4 cuts sequences in 8 parts"),
        (
            changed({"cp": 8, "cp_style": "all_to_all"}),
            "cp=8 by all_to_all with tp=1 does not divide kv_heads=4; use cp_style=ring",
        ),
        (changed({"ep": 2}), "layout.ep=2 etp=1 divide experts, and small-llama has none"),
        (changed({"vpp": 2}), "1f1b has one chunk per rank, not 2; use chunks=1, or interleaved"),
        (changed({"vpp": 2, "schedule": "dualpipev", "micro_batch": 24}), "use 2 microbatches"),
        (changed({"dp": 4, "zero": 3, "shard": 3}), "layout.shard=3 with zero=3 on 4 replicas"),
        (changed({"dp": 4, "shard": 2}), "layout.shard=2 with zero=0"),
        (changed({"dp": 2, "zero": 1, "sync": "parameter_server"}), "parameter_server with zero=1"),
        (changed({"tp": 8}), "tp=8 does not divide kv_heads=4"),
        (
            changed({}, model=llama_like(sliding_window=8)),
            r"model.stacks.0.kinds.0.attention.window=8 is less than seq_len=16.*another runtime",
        ),
        (
            changed({}, model=llama_like(positions="learned", max_positions=8)),
            "seq_len=16 exceeds model.stacks.0.embedding.max_positions=8",
        ),
    ],
)
def test_refused_by_name(plan: Plan, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refusals.check(plan)


def test_16_bit_training_needs_wide_copies() -> None:
    plan = make_plan("llama", dtype="bf16")
    refusals.check(plan)
    narrow = plan.runtime.replace(master_weights=False)
    with pytest.raises(InputError, match="fp32 master weights"):
        refusals.check(plan.replace(runtime=narrow))


def test_backend_follows_the_machine_and_the_plan() -> None:
    local = make_plan("llama")
    remote = local.replace(cluster=gpu_cluster())
    assert refusals.choose_backend(local, machine(), "auto") == "gloo"
    assert refusals.choose_backend(remote, machine(gpus=8), "auto") == "nccl"
    assert refusals.choose_backend(remote, machine(), "gloo") == "gloo"
    with pytest.raises(InputError, match=r"this machine has no GPU.*--backend gloo"):
        refusals.choose_backend(remote, machine(), "auto")
    with pytest.raises(InputError, match="nccl needs GPUs"):
        refusals.choose_backend(local, machine(), "nccl")


def test_too_small_machines_are_refused_with_numbers() -> None:
    plan = make_plan("llama", dp=4)
    refusals.check_machine(plan, machine(), "gloo", held_bytes=2.0**30)
    with pytest.raises(InputError, match=r"4 ranks need at least 9\.2 GiB .* has 8\.0 GiB"):
        refusals.check_machine(plan, machine(), "gloo", held_bytes=8.0 * 2**30)
    with pytest.raises(InputError, match=r"needs 4 GPUs .*, this machine has 2"):
        refusals.check_machine(plan, machine(gpus=2), "nccl", held_bytes=0.0)
    with pytest.raises(InputError, match=r"at least 100\.0 GiB, a GPU here has 80\.0 GiB"):
        refusals.check_machine(plan, machine(gpus=4), "nccl", held_bytes=400.0 * 2**30)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"warmup": -1},
        {"timeout_seconds": 0.0},
        {"backend": "mpi"},
        {"clip_norm": 0.0},
        {"clip_norm": float("nan")},
    ],
)
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--"):
        RunOptions(**wrong)


def test_timeout_needs_a_unit() -> None:
    assert read_options(1, 0, "2min", "auto").timeout_seconds == 120
    with pytest.raises(InputError, match="--timeout: '60'"):
        read_options(1, 0, "60", "auto")
