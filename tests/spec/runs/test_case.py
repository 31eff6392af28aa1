"""Cases: what is predicted for a measured run, what was assumed, and why a run is skipped."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import catalog
from planner.spec.documents import InputError
from planner.spec.layer import MLP, Experts
from planner.spec.runs.case import Case, case_of, make_cases
from planner.spec.runs.cluster import accelerator_of, device_rate
from planner.spec.runs.names import by_name
from planner.spec.runs.run import MAY_BE_ZERO, TYPES, Run, read_runs
from planner.spec.runs.runtime import nearest
from planner.spec.runs.unusable import UnusableError

RUNS = catalog.FOLDER / "runs"

PLAIN: dict[str, Any] = {
    "source": "mine",
    "model": "gpt-x",
    "arch": "gpt",
    "n_layers": 4,
    "hidden": 64,
    "n_heads": 4,
    "n_kv_heads": 4,
    "ffn_hidden": 256,
    "vocab": 512,
    "seq_len": 128,
    "gpu": "H100-80GB-SXM",
    "n_gpus": 16,
    "gpus_per_node": 8,
    "runtime": "megatron-core",
    "dtype": "bf16",
    "dp": 4,
    "tp": 2,
    "pp": 2,
    "cp": 1,
    "vpp": 1,
    "zero_stage": 1,
    "sequence_parallel": True,
    "recompute": "none",
    "flash_attention": True,
    "micro_batch": 2,
    "global_batch": 32,
    "step_time_s": 1.0,
}


def case(**changes: Any) -> Case:
    return case_of(Run(file="mine.csv", line=2, **(PLAIN | changes)))


def reason(**changes: Any) -> str:
    with pytest.raises(UnusableError) as error:
        case(**changes)
    return str(error.value)


def test_a_complete_row_is_taken_as_it_is_and_assumes_nothing() -> None:
    found = case()
    assert found.notes == ()
    assert str(found.layout) == "dp=4 tp=2 pp=2 micro_batch=2 zero=1 recompute=none schedule=1f1b"
    assert (found.cluster.devices, found.cluster.accelerator.name) == (16, "h100-sxm")
    assert (found.workload.seq_len, found.workload.global_batch) == (128, 32)
    layer = found.model.layer
    assert (found.model.layers, found.model.hidden, layer.attention.heads) == (4, 64, 4)
    assert isinstance(layer.feed_forward, MLP)
    assert layer.feed_forward.bias
    assert found.model.tied_embeddings
    assert found.model.main.embedding.positions == "learned"


SKIPPED = {
    "bigscience_bloom_prequel": (71, {"n_heads unknown": 16}),
    "hf_ultrascale": (1086, {"warning=1: the source contradicts itself": 5}),
    "hf_ultrascale_crashed_or_oom": (590, {"warning=1: the source contradicts itself": 4}),
    "korthikanti_2022": (10, {"no step time": 6}),
    "llm_foundry": (139, {}),
    "megatron_sc21_table1": (10, {}),
    "nemo_2407": (36, {"LoRA: most weights are frozen": 6}),
    "vtrain_single": (720, {}),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_every_public_row_is_used_or_counted_under_its_reason(name: str) -> None:
    runs = read_runs(RUNS / f"{name}.csv")
    rows, skipped = SKIPPED[name]
    made = make_cases(runs)
    assert len(runs) == rows
    assert made.skipped == skipped
    assert len(made.cases) == rows - sum(skipped.values())


def test_the_public_failures_are_failures() -> None:
    counted = {name: make_cases(read_runs(RUNS / f"{name}.csv")).cases for name in SKIPPED}
    failed = Counter({name: sum(c.failed for c in cases) for name, cases in counted.items()})
    assert +failed == {"hf_ultrascale_crashed_or_oom": 586, "bigscience_bloom_prequel": 2}
    assert all(c.step_seconds is None for cases in counted.values() for c in cases if c.failed)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"warning": True}, "warning=1: the source contradicts itself"),
        ({"step_time_s": None}, "no step time"),
        ({"n_heads": None}, "n_heads unknown"),
        ({"n_layers": None}, "n_layers unknown"),
        ({"hidden": 66}, "hidden is no multiple of n_heads"),
        ({"n_kv_heads": 3}, "n_heads is no multiple of n_kv_heads"),
        ({"seq_len": None}, "seq_len unknown"),
        ({"pp": None, "tp": None}, "pp unknown"),
        ({"n_gpus": None, "pp": None}, "n_gpus unknown"),
        ({"n_gpus": 24}, "dp*tp*pp*cp is not n_gpus"),
        ({"dp": 3}, "dp*tp*pp*cp is not n_gpus"),
        ({"global_batch": 30}, "global_batch is no multiple of dp*micro_batch"),
        ({"global_batch": None}, "global_batch unknown"),
        ({"micro_batch": None, "global_batch": None}, "micro_batch unknown"),
        ({"gpu": None}, "gpu unknown"),
        ({"gpu": "Abacus 9000"}, "no accelerator called Abacus 9000"),
        ({"model": "LLAMA2-7B LoRA"}, "LoRA: most weights are frozen"),
        ({"n_experts": 2, "experts_per_token": 4}, "experts_per_token is more than n_experts"),
    ],
)
def test_a_run_that_cannot_be_predicted_has_one_reason(changes: dict[str, Any], why: str) -> None:
    assert reason(**changes) == why


def test_memory_or_a_failure_without_a_time_is_used() -> None:
    kept = case(step_time_s=None, peak_mem_gib=4.0)
    assert (kept.step_seconds, kept.peak_bytes, kept.failed) == (None, 2.0**32, False)
    assert case(step_time_s=None, notes="CRASHED/OOM (nan in source)").failed
    assert not case(notes="the run after the OOM").failed
    assert reason(step_time_s=None, notes="room for a zoom") == "no step time"


@pytest.mark.parametrize(
    ("changes", "times", "word"),
    [
        ({"tflops_per_gpu": 100.0}, 1.0, "tflops_per_gpu"),
        ({"tflops_per_gpu": 100.0, "recompute": "full"}, 1.0, "tflops_per_gpu"),
        (
            {"tflops_per_gpu": 100.0, "recompute": "full", "runtime": "megatron-lm-2021"},
            4 / 3,
            "rec",
        ),
        ({"mfu_pct": 100 * 100 / 989}, 1.0, "mfu_pct of bf16"),
        ({"tflops_per_gpu": 100.0, "runtime": "Megatron-Bridge"}, 0.5, "tflops_per_gpu"),
        ({"tflops_per_gpu": 100.0, "runtime": "megatron-core", "year": 2025}, 0.5, "tflops"),
        ({"tflops_per_gpu": 100.0, "runtime": "megatron-core", "year": 2024}, 1.0, "tflops"),
    ],
)
def test_a_rate_is_a_time_where_flops_are_counted(
    changes: dict[str, Any], times: float, word: str
) -> None:
    """These FLOPs are all of attention: they grow with the square of the sequence."""
    row = Run(file="mine.csv", line=2, **(PLAIN | {"step_time_s": None} | changes))
    (found,) = make_cases(
        [row], flops=lambda _, work: 1e12 * work.global_batch * (work.seq_len / 128) ** 2
    ).cases
    assert found.step_seconds == pytest.approx(times * 32e12 / (100e12 * 16))
    assert any(word in note for note in found.notes)
    assert make_cases([row]).skipped == {"no step time": 1}


def test_degrees_and_batches_follow_from_the_others() -> None:
    assert case(dp=None).layout.dp == 4
    assert case(n_gpus=None).cluster.devices == 16
    assert case(cp=None, vpp=None, ep=0).layout == case().layout
    assert case(global_batch=None, grad_accum=4).workload.global_batch == 32
    assert case(micro_batch=None, grad_accum=4).layout.micro_batch == 2
    sharded = case(dp=None, tp=None, pp=None, cp=None, fsdp=True, zero_stage=None)
    assert (sharded.layout.dp, sharded.layout.zero) == (16, 3)


NO_SIZES = dict.fromkeys(("n_layers", "hidden", "n_heads", "n_kv_heads", "ffn_hidden", "vocab"))


def test_a_throughput_needs_no_global_batch_but_a_time_does() -> None:
    changes = {"global_batch": None, "step_time_s": None, "tokens_per_s_per_gpu": 64.0}
    found = case(**changes, dp=8, pp=1)
    assert (found.workload.global_batch, found.step_seconds) == (16, 16 * 128 / (64 * 16))
    assert any("one microbatch assumed" in note for note in found.notes)
    assert reason(**changes) == "global_batch unknown"
    assert reason(global_batch=None, dp=8, pp=1) == "global_batch unknown"


def test_a_microbatch_that_nothing_tells_is_one_sequence() -> None:
    found = case(micro_batch=None, grad_accum=None)
    assert found.layout.micro_batch == 1
    assert "micro_batch unknown, 1 assumed" in found.notes


def test_a_throughput_stands_without_a_length_but_a_time_does_not() -> None:
    speed = {"step_time_s": None, "tokens_per_s_per_gpu": 64.0}
    found = case(**speed, seq_len=None, model="llama3-8b", arch=None, **NO_SIZES)
    assert found.workload.seq_len == 4096
    assert found.step_seconds == found.workload.global_batch * 4096 / (64 * 16)
    assert reason(seq_len=None) == "seq_len unknown"


@pytest.mark.parametrize(("pp", "zero"), [(1, 3), (2, 1)])
@pytest.mark.parametrize("told", [None, 3])
def test_torchtitan_gathers_and_reduces_once_a_step_in_a_pipeline(
    pp: int, zero: int, told: int | None
) -> None:
    found = case(runtime="torchtitan", fsdp=True, zero_stage=told, pp=pp, dp=None)
    assert found.layout.zero == zero


def test_states_may_be_divided_over_fewer_ranks_than_all_replicas() -> None:
    assert [case(shard=n).layout.shard for n in (None, 2, 4)] == [None, 2, None]
    assert case(shard=2, zero_stage=0).layout.shard is None
    assert reason(shard=3) == "dp is no multiple of shard"


@pytest.mark.parametrize("runtime", ["torchtune", "MaxText", "axolotl", "PyTorch DDP", "DeepSpeed"])
def test_degrees_that_such_software_does_not_mention_are_not_used(runtime: str) -> None:
    found = case(runtime=runtime, **dict.fromkeys(("dp", "tp", "pp", "cp")))
    assert (found.layout.dp, found.layout.tp, found.layout.pp) == (16, 1, 1)


@pytest.mark.parametrize(
    ("name", "layers", "vocab"),
    [
        ("mosaicml/mpt-30b", 48, 50_432),
        ("tiiuae/falcon-40b-instruct", 60, 65_024),
        ("OLMo-2-7B", 32, 100_352),
        ("xai-org/Grok-1", 64, 131_072),
    ],
)
def test_a_name_may_stand_for_sizes(name: str, layers: int, vocab: int) -> None:
    found = case(model=name, arch=None, **NO_SIZES).model
    assert (found.layers, found.vocab) == (layers, vocab)
    cut = case(model=name, arch=None, **{**NO_SIZES, "n_layers": 4}).model
    assert (cut.layers, cut.hidden) == (4, found.hidden)


def test_experts_beside_dp_are_folded_into_it() -> None:
    found = case(dp=2, ep=2, n_experts=4, arch="mixtral")
    assert (found.layout.dp, found.layout.ep, found.layout.devices) == (4, 2, 16)
    assert any("ep counted apart" in note for note in found.notes)


@pytest.mark.parametrize(
    ("gpu", "said", "dtype", "noted"),
    [
        ("H100", "FP8", "fp8", False),
        ("A100-80GB", "fp8", "bf16", True),
        ("V100-32GB", "bf16", "fp16", True),
        ("B200", "nvfp4", "fp4", False),
        ("GB300", "MXFP4", "fp4", False),
        ("H100", "nvfp4", "fp8", True),
        ("B200", "mxfp8", "fp8", False),
        ("H100", "bfloat16 mixed", "bf16", False),
        ("H100", "secret", "bf16", True),
    ],
)
def test_a_format_is_read_or_replaced_by_the_nearest(
    gpu: str, said: str, dtype: str, noted: bool
) -> None:
    found = case(gpu=gpu, dtype=said)
    assert found.workload.dtype == dtype
    assert any(note.startswith(f"dtype {said}") for note in found.notes) is noted


DEGREE = st.sampled_from([None, 0, 1, 2, 3, 4, 8, 64])
SIZE = st.sampled_from([None, 1, 2, 7, 64, 4096])
FLAG = st.sampled_from([None, True, False])
WORDS = ("llama2-7b", "mixtral", "gpt", "H100", "MI250X", "NDR 400 Gb/s", "full", "bf16", "oom")
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int | None: st.one_of(DEGREE, SIZE),
    float | None: st.sampled_from([None, 0.0, 0.5, 100.0]),
    bool | None: FLAG,
    str | None: st.sampled_from([None, *WORDS]),
}


CELL = (
    st.sampled_from(list(TYPES))
    .flatmap(lambda name: st.tuples(st.just(name), VALUES[TYPES[name]]))
    .filter(lambda cell: cell[1] != 0 or TYPES[cell[0]] != int | None or cell[0] in MAY_BE_ZERO)
)


@given(st.lists(CELL, max_size=5))
def test_whatever_the_cells_say_a_row_is_used_or_counted(changes: list[tuple[str, Any]]) -> None:
    made = make_cases([Run(file="mine.csv", line=2, **(PLAIN | dict(changes)))])
    assert len(made.cases) + sum(made.skipped.values()) == 1


def test_flags_of_the_row_replace_those_of_the_runtime() -> None:
    assert not case(flash_attention=False).runtime.flash_attention
    assert not case(sequence_parallel=False).runtime.sequence_parallel
    experts = case(sequence_parallel=False, n_experts=4, arch="mixtral")
    assert experts.runtime.sequence_parallel
    assert any("sequence_parallel off" in note for note in experts.notes)
    kept = case(sequence_parallel=False, tp=1, dp=8)
    assert kept.runtime == catalog.find_runtime("megatron-core")


def test_what_is_assumed_is_said() -> None:
    changes = dict.fromkeys(
        ("ffn_hidden", "n_kv_heads", "vocab", "recompute", "flash_attention", "dtype", "zero_stage")
    )
    text = "\n".join(case(**changes, gpu="A100", runtime="my-own").notes)
    for part in ("ffn_hidden", "n_kv_heads", "vocab", "recompute", "flash", "dtype", "zero_stage"):
        assert f"{part}" in text
    assert "40 or 80 GB unknown" in text
    assert "runtime 'my-own'" in text


def test_families_and_experts() -> None:
    llama = case(arch="llama", n_kv_heads=2).model
    assert (llama.norm, llama.tied_embeddings, llama.layer.attention.rotary_dim) == (
        "rmsnorm",
        False,
        16,
    )
    assert isinstance(llama.layer.feed_forward, MLP)
    assert llama.layer.feed_forward.gated
    moe = case(arch="mixtral", n_experts=8, experts_per_token=2).model.layer.feed_forward
    assert isinstance(moe, Experts)
    assert (moe.experts, moe.per_token, moe.expert.ffn) == (8, 2, 256)
    assert case(arch=None, model="secret", gated_mlp=True).model.family == "llama"


def test_software_that_cannot_divide_so_is_not_taken_for_a_row_that_does() -> None:
    plain = {"runtime": "My FSDP loop", "zero_stage": None, "fsdp": True}
    assert case(**plain, tp=1, pp=1, dp=16).runtime.name == "fsdp"
    assert case(**plain).runtime.name == "torchtitan"
    assert case(**plain | {"runtime": "maxtext"}).runtime.name == "fsdp"


@pytest.mark.parametrize(
    ("text", "year", "gpu", "name"),
    [
        ("Megatron-LM", None, "H100", "megatron-core"),
        ("Megatron-LM", 2024, "H100", "megatron-core"),
        ("Megatron-LM", None, "A100", "megatron-lm-2022"),
        ("Megatron-LM", 2024, "A100", "megatron-lm-2022"),
        ("Megatron-LM", 2025, "A100", "megatron-core"),
        ("Megatron-LM", 2021, "A100", "megatron-lm-2021"),
        ("NeMo Megatron 22.08", 2022, "A100", "megatron-lm-2022"),
        ("NeMo Megatron", None, "A100", "nemo"),
        ("Megatron DeepSpeed", 2021, "A100", "megatron-deepspeed"),
        ("Megatron-Core", None, "A100", "megatron-core"),
        ("nemo", 2022, "A100", "nemo"),
    ],
)
def test_megatron_is_that_of_its_year(text: str, year: int | None, gpu: str, name: str) -> None:
    assert case(runtime=text, year=year, gpu=gpu).runtime.name == name


def test_key_value_heads_are_repeated_where_tp_is_larger() -> None:
    found = case(n_kv_heads=1)
    assert found.model.layer.attention.kv_heads == 2
    assert any("repeated" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GPT3-5B", "gpt3-5b"),
        ("GPT3-175B", "gpt3-175b"),
        ("LLAMA2-7B SFT", "llama2-7b"),
        ("LLAMA3-8B", "llama3.1-8b"),
        ("meta-llama/Llama-3.1-70B-Instruct", "llama3.1-70b"),
        ("Nemotron-340B", "nemotron4-340b"),
        ("mixtral-8x7B-v0.1", "mixtral-8x7b"),
        ("Qwen2.5 72B", "qwen2.5-72b"),
        ("LLaMA V3.1 8B", "llama3.1-8b"),
        ("DeepSeek V3 671B", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("Qwen3 MoE 30B", "qwen3-30b-a3b"),
    ],
)
def test_a_model_is_found_by_the_names_people_give_it(text: str, name: str) -> None:
    found = by_name(text)
    assert found is not None
    assert found.name == name
    sizes = dict.fromkeys(
        ("arch", "n_layers", "hidden", "n_heads", "n_kv_heads", "ffn_hidden", "vocab")
    )
    assert case(model=text, **sizes).model.layers == found.layers


def test_a_name_never_overrules_a_size() -> None:
    assert by_name("gpt-18B") is not None
    assert reason(model="gpt-18B", n_heads=None) == "n_heads unknown"
    assert case(model="gpt-18B").model.layers == 4
    assert by_name("gpt-181B") is None


@pytest.mark.parametrize(
    ("devices", "of_a_rack"), [(8, 72), (64, 72), (256, 64), (100, 50), (97, 72)]
)
def test_a_job_takes_as_many_devices_of_every_rack(devices: int, of_a_rack: int) -> None:
    """Else groups of 64 would cross the racks of 72."""
    found = case(
        gpu="GB200", n_gpus=devices, dp=devices, tp=1, pp=1, global_batch=devices, micro_batch=1
    )
    assert found.cluster.devices_per_node == of_a_rack
    assert found.cluster.devices >= devices


def test_hosts_of_a_torus_are_no_nodes() -> None:
    found = case(gpu="TPU v5e", gpus_per_node=4, n_gpus=512, dp=512, tp=1, pp=1, global_batch=1024)
    assert [tier.devices for tier in found.cluster.tiers] == [8, 256, 512]
    assert "gpu: hosts of 4 in a torus, 8 a node" in found.notes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A100", "a100-80"),
        ("A100-40GB", "a100-40"),
        ("A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("A100 80GB PCIe", "a100-80-pcie"),
        ("H100-80GB-SXM", "h100-sxm"),
        ("H100 SXM5", "h100-sxm"),
        ("8xH100", "h100-sxm"),
        ("H100 PCIe", "h100-pcie"),
        ("H200", "h200-sxm"),
        ("B200", "b200"),
        ("GB200 NVL72", "gb200"),
        ("MI300X", "mi300x"),
        ("MI350X", "mi355x"),
        ("AMD Instinct MI250X", "mi250x"),
        ("MI250X (GCD)", "mi250x-gcd"),
        ("V100-32GB", "v100-32"),
        ("L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("H20-96GB", "h20"),
        ("Gaudi2", "gaudi2"),
        ("Intel Gaudi 3", "gaudi3"),
        ("Tesla T4", "t4"),
        ("H100 NVL", "h100-sxm"),
        ("RTX4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("TPU v5p", "tpu-v5p"),
        ("v5litepod-256", "tpu-v5e"),
        ("TPU v5 lite", "tpu-v5e"),
        ("Cloud TPU v6e-256", "tpu-v6e"),
        ("TPUv4", "tpu-v4"),
        ("TPU7x (Ironwood)", "tpu7x"),
        ("RTX A6000", "rtx-a6000"),
        ("MI210", "mi250x-gcd"),
        ("HL-225", "gaudi2"),
        ("p4d.24xlarge", "a100-40"),
        ("p3.16xlarge", "v100-16"),
        ("DGX-2", "v100-32"),
        ("NVIDIA A10", "a10g"),
        ("Atlas 800T A2", "ascend-910b"),
        ("TPU v6", "tpu-v6e"),
        ("p5.48xlarge", "h100-sxm"),
        ("p5en.48xlarge", "h200-sxm"),
        ("a3-megagpu-8g", "h100-sxm"),
    ],
)
def test_a_device_is_found_by_the_names_people_give_it(text: str, name: str) -> None:
    assert accelerator_of(text)[0].name == name


def test_every_device_of_the_catalog_makes_a_cluster() -> None:
    for name in catalog.list_accelerators():
        if not catalog.find_accelerator(name).peak_flops:
            assert reason(gpu=name) == f"no bf16 FLOP/s of {name} known"
            continue
        found = case(gpu=name, gpus_per_node=None, dtype=None)
        assert found.cluster.accelerator.name == name
        assert found.cluster.devices >= 16


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [
        ("8x HDR IB 200Gb/s (Selene)", 25.0),
        ("4x Omni-Path per node (README; OPA 100 Gb/s)", 6.25),
        ("1600 Gbps RoCE node-node", 25.0),
        ("EFA 400 Gbps", 6.25),
        ("3.2 Tbps", 50.0),
        ("8 x NDR", 50.0),
        ("400 Gb/s per GPU", 50.0),
        ("25 GB/s per device", 25.0),
    ],
)
def test_a_link_is_read_per_device(text: str, gigabytes: float) -> None:
    rate, notes = device_rate(text, per_node=8)
    assert rate == pytest.approx(gigabytes * 1e9)
    assert notes == ()


def test_omni_path_reaches_less_of_its_rate() -> None:
    found = case(inter_node_link="4x Omni-Path per node (OPA 100 Gb/s)")
    assert found.cluster.tiers[1].bandwidth_bytes_per_second == pytest.approx(50e9 / 8 * 0.2)


def test_the_rate_of_all_cards_beside_their_number_is_not_that_of_one() -> None:
    assert device_rate("4x HDR InfiniBand per node (800 Gb/s)", 8) == (12.5e9, ())


def test_a_link_without_a_rate_leaves_the_design_and_says_so() -> None:
    assert device_rate("HDR IB (Selene)", 8) == (None, ())
    assert device_rate("0 Gbps", 8) == device_rate("0x NDR", 8) == (None, ())
    found = case(inter_node_link="HDR IB (Selene)")
    assert found.cluster.tiers == case().cluster.tiers
    assert any("says no rate" in note for note in found.notes)


def test_a_link_with_a_rate_is_the_network() -> None:
    found = case(inter_node_link="8x HDR IB 200Gb/s")
    assert found.cluster.tiers[1].bandwidth_bytes_per_second == pytest.approx(22.5e9)
    assert found.cluster.tiers[0] == case().cluster.tiers[0]


@pytest.mark.parametrize(
    ("gpu", "text", "gigabytes"),
    [
        ("A100", "NVLink 4 inter-gpu connects", 80),
        ("V100", "NV2", 40),
        ("GB200", "NV9 (half of them)", 360),
    ],
)
def test_counted_nvlinks_are_the_fabric(gpu: str, text: str, gigabytes: float) -> None:
    fabric = case(gpu=gpu, intra_node_link=text).cluster.tiers[0]
    assert fabric.bandwidth_bytes_per_second == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize("text", ["NV12", "NVLink4", "NVLink3/NVSwitch", "NV0", "PCIe"])
def test_all_links_or_none_counted_leave_the_design(text: str) -> None:
    assert case(gpu="A100", intra_node_link=text).cluster.tiers == case(gpu="A100").cluster.tiers


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NeMo AutoModel", "torchtitan"),
        ("GPT-NeoX", "megatron-deepspeed"),
        ("fms-fsdp", "fsdp"),
        ("AXLearn", "fsdp"),
        ("NeMo 24.05", "nemo"),
    ],
)
def test_a_software_that_builds_on_another_is_read_as_that(text: str, name: str) -> None:
    assert nearest(text) == name


@pytest.mark.parametrize(
    "name",
    ["nemo", "NeMo 25.02", "torchtitan", "FSDP2", "MaxText", "deepspeed", "megatron-lm-2023"],
)
def test_every_software_has_a_stand_in(name: str) -> None:
    assert nearest(name) in catalog.list_runtimes()
    assert case(runtime=name).runtime.name in catalog.list_runtimes()


def test_a_chosen_runtime_must_exist() -> None:
    run = Run(file="mine.csv", line=2, **PLAIN)
    assert make_cases([run], "native").cases[0].runtime.name == "native"
    with pytest.raises(InputError, match="no runtime is called 'nativ'"):
        make_cases([run], "nativ")


MIXTURE = {"arch": "llama", "n_experts": 8, "experts_per_token": 2, "ep": 2, "vocab": 512}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, 2),
        ({"etp": 1}, 1),
        ({"etp": 0}, 1),
        ({"tp": 1, "dp": 8}, 1),
        ({"ep": 8}, 1),
        ({"source": "megatron-bridge-26.02"}, 1),
        ({"runtime": "torchtitan", "zero_stage": 2}, 1),
        ({"n_experts": None, "experts_per_token": None, "ep": None}, 1),
    ],
)
def test_experts_are_divided_as_the_row_or_its_software_says(
    told: dict[str, Any], expected: int
) -> None:
    """Over tp by default, where the degrees leave room."""
    assert case(**(MIXTURE | told)).layout.etp == expected


def test_what_is_assumed_of_experts_is_noted() -> None:
    assert "etp unknown, tp assumed" in case(**MIXTURE).notes
    assert "etp unknown, 1 assumed" in case(**(MIXTURE | {"source": "megatron-bridge"})).notes
    assert not [note for note in case().notes if "etp" in note]


@pytest.mark.parametrize(
    ("told", "micro_batch"),
    [({}, 4), ({"pp": 1, "dp": 8}, 1), ({"global_batch": 36}, 1), ({"runtime": "nemo"}, 1)],
)
def test_torchtitan_cuts_as_many_microbatches_as_the_pipeline_has_ranks(
    told: dict[str, Any], micro_batch: int
) -> None:
    batch = {"runtime": "torchtitan", "zero_stage": 2, "micro_batch": None, "global_batch": 32}
    found = case(**(batch | told))
    assert found.layout.micro_batch == micro_batch
    assert any("micro_batch unknown" in note for note in found.notes)


def test_without_a_switch_the_links_follow_the_devices_of_a_node() -> None:
    """Of 4 V100 each has 3 of the 7 links; 16 are a DGX-2, which has switches."""
    whole = case(gpu="V100-SXM2-32GB", gpus_per_node=8, dtype="fp16").cluster.tiers[0]
    fewer = case(gpu="V100-SXM2-32GB", gpus_per_node=4, dtype="fp16").cluster.tiers[0]
    more = case(gpu="V100-SXM2-32GB", gpus_per_node=16, dtype="fp16").cluster.tiers[0]
    assert (whole.pairwise, fewer.pairwise, more.pairwise) == (True, True, False)
    assert fewer.bandwidth_bytes_per_second == pytest.approx(
        whole.bandwidth_bytes_per_second * 3 / 7
    )
    assert more.bandwidth_bytes_per_second == whole.bandwidth_bytes_per_second
    assert case(gpu="MI355X").cluster.tiers[0].pairwise


def test_a_dispatcher_that_is_told_sends_tokens_once() -> None:
    assert not case(runtime="megatron-core").runtime.sends_tokens_once
    assert case(runtime="megatron-core", notes="DeepEP").runtime.sends_tokens_once
    assert not case(runtime="megatron-core").runtime.overlaps_experts
    assert case(runtime="HAI-LLM (DualPipe)").runtime.overlaps_experts


def test_a_sequence_that_tp_does_not_divide_is_not_divided() -> None:
    found = case(n_gpus=48, tp=12, dp=4, pp=1, runtime="nemo", sequence_parallel=None)
    assert not found.runtime.sequence_parallel
    assert any("tp does not divide" in note for note in found.notes)


def test_xla_sends_pieces_beside_the_products() -> None:
    assert case(runtime="MaxText", gpu="TPU v5p", sequence_parallel=None).runtime.overlaps_tp
    assert not case(runtime="torchtitan").runtime.overlaps_tp
