"""Catalog: every entry loads, says where it comes from, and wrong names find their way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import catalog, documents
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.node import Node
from planner.spec.runtime import AXES, SCHEDULES, Runtime
from tests.spec.formula import parameters

INDEX = documents.read_mapping(catalog.FOLDER / "models" / "index.yaml")
EXACT = [name for name, facts in INDEX.items() if "published_parameters" in facts]
ROUNDED = [name for name, facts in INDEX.items() if "rounded_parameters" in facts]
NUMBERS = [
    name
    for name, field in Accelerator.model_fields.items()
    if name not in {"name", "kind", "fabric", "notes", "provenance"}
]


def test_the_lists_name_what_was_asked_for():
    assert {
        "gpt2",
        "llama3.1-405b",
        "gpt3-175b",
        "gpt-1t",
        "tiny-llama",
        "mixtral-8x7b",
        "deepseek-v3",
        "qwen3-235b-a22b",
        "gemma3-27b",
        "opt-175b",
        "bert-large",
        "vit-large",
        "flan-t5-xxl",
        "whisper-large-v3",
    } <= set(catalog.list_models())
    assert {"h100-sxm", "gb200-nvl72", "v100-16", "mi300x", "rtx4090"} <= set(
        catalog.list_clusters()
    )
    assert {"a10g", "tpu-v5p", "gb300"} <= set(catalog.list_accelerators())
    measured = {"nanotron", "megatron-deepspeed", "composer-fsdp", "nemo"}
    measured |= {"megatron-lm-2021", "megatron-lm-2022"}
    others = {"megatron-core", "torchtitan", "fsdp", "deepspeed", "native"}
    assert set(catalog.list_runtimes()) == measured | others
    assert "index" not in catalog.list_models() + catalog.list_accelerators()


@pytest.mark.parametrize("name", catalog.list_models())
def test_every_model_loads_with_its_source(name):
    model = catalog.find_model(name)
    assert model.name == name
    assert model.source == INDEX[name]["source"]


def test_the_model_index_and_the_models_are_the_same_set():
    assert tuple(sorted(INDEX)) == catalog.list_models()


@pytest.mark.parametrize("name", EXACT)
def test_published_counts_match_an_independent_formula_exactly(name):
    """Published buffers are numbers of a checkpoint that are no parameters."""
    model = catalog.find_model(name)
    assert model.published_parameters == INDEX[name]["published_parameters"]
    counted = parameters(model) + INDEX[name].get("published_buffers", 0)
    assert model.published_parameters == counted


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_counts_match_to_their_rounding(name):
    model = catalog.find_model(name)
    assert parameters(model) / 1e9 == pytest.approx(INDEX[name]["rounded_parameters"], rel=0.03)
    assert model.published_parameters is None


def test_the_published_counts_of_the_facts():
    counts = {name: catalog.find_model(name).published_parameters for name in EXACT}
    assert counts["llama3.1-8b"] == 8_030_261_248
    assert counts["mixtral-8x7b"] == 46_702_792_704
    assert counts["deepseek-v3"] == 671_026_419_200


def test_the_models_of_the_facts():
    llama = catalog.find_model("llama3.1-8b")
    attention = llama.layer.attention
    assert (llama.layers, llama.hidden, llama.layer.feed_forward.ffn) == (32, 4096, 14336)
    assert (attention.heads, attention.kv_heads, attention.rope_theta) == (32, 8, 500_000)
    assert catalog.find_model("mistral-7b").layer.attention.window is None
    assert catalog.find_model("gpt2").tied_embeddings
    tiny = catalog.find_model("tiny-gpt2")
    assert (tiny.hidden, tiny.layer.attention.heads, tiny.vocab) == (256, 4, 8192)


@pytest.mark.parametrize("name", catalog.list_accelerators())
def test_every_accelerator_has_a_source_for_each_of_its_numbers(name):
    device = catalog.find_accelerator(name)
    assert device.name == name
    given_numbers = {field for field in NUMBERS if getattr(device, field) not in (None, {})}
    assert set(device.provenance) == given_numbers
    assert all(born.source.strip() for born in device.provenance.values())


@pytest.mark.parametrize("name", catalog.list_accelerators())
def test_efficiency_is_the_measured_share_of_the_peak(name):
    device = catalog.find_accelerator(name)
    if "bf16" in device.matmul_flops:
        share = device.matmul_flops["bf16"] / device.peak_flops["bf16"]
        assert device.matmul_efficiency == pytest.approx(share, abs=1e-3)
    else:
        assert device.matmul_efficiency == Accelerator.model_fields["matmul_efficiency"].default
        assert device.provenance["matmul_efficiency"].birth == "assumed"


def test_a_number_of_another_variant_is_not_called_measured():
    assert catalog.find_accelerator("a100-80").provenance["matmul_flops"].birth == "measured"
    borrowed = catalog.find_accelerator("a100-40").provenance["matmul_flops"]
    assert borrowed.birth == "assumed"
    assert "80GB" in borrowed.source


def test_what_the_sources_do_not_say_stays_empty():
    assert catalog.find_accelerator("gb300").price_usd_per_hour is None
    assert catalog.find_accelerator("a10g").peak_flops == {}
    assert catalog.find_accelerator("v100-32").price_usd_per_hour is None
    assert "bf16" not in catalog.find_accelerator("v100-16").peak_flops


def test_device_names_of_the_driver_lead_to_entries():
    names = documents.read_mapping(catalog.FOLDER / "accelerators" / "index.yaml")["device_names"]
    assert set(names.values()) <= set(catalog.list_accelerators())
    found = catalog.accelerator_of("NVIDIA H200")
    assert found == catalog.find_accelerator("h200-sxm")
    assert catalog.accelerator_of("NVIDIA Unheard-of") is None


@pytest.mark.parametrize("name", catalog.list_clusters())
@pytest.mark.parametrize("nodes", [1, 3])
def test_every_cluster_loads_for_any_number_of_nodes(name, nodes):
    cluster = catalog.find_cluster(f"{name}:{nodes}")
    assert cluster.name == f"{name}:{nodes}"
    assert cluster.nodes == nodes
    assert len(cluster.tiers) == min(nodes, 2)
    assert cluster.tiers[-1].devices == cluster.devices


@pytest.mark.parametrize("name", catalog.list_clusters())
def test_every_number_of_a_node_has_a_source(name):
    node = documents.load(Node, catalog.FOLDER / "clusters" / f"{name}.yaml")
    gained = {"fabric.in_network_gain"} if node.fabric.in_network_gain > 1 else set()
    gained |= {"fabric.pairwise"} if node.fabric.pairwise else set()
    links = ("fabric", "network", *(("pods",) if node.pods else ()))
    assert set(node.provenance) - gained == {
        "devices_per_node",
        *(("pod_devices",) if node.pods else ()),
        *(f"{link}.bandwidth_bytes_per_second" for link in links),
        *(f"{link}.latency_seconds" for link in links),
    }


@pytest.mark.parametrize("name", catalog.list_clusters())
def test_the_fabric_is_no_faster_than_its_data_sheet_and_faster_than_the_network(name):
    cluster = catalog.find_cluster(f"{name}:2")
    fabric, network = cluster.tiers
    sheet = cluster.accelerator.fabric_bytes_per_second
    assert sheet is None or fabric.bandwidth_bytes_per_second <= sheet
    assert fabric.bandwidth_bytes_per_second > network.bandwidth_bytes_per_second
    assert fabric.latency_seconds > 0


@pytest.mark.parametrize("name", [n for n in catalog.list_clusters() if n.startswith("tpu-")])
def test_chips_of_a_torus_lose_bandwidth_from_axis_to_pod_to_pods(name):
    """Beyond a pod there is the data-centre network; a pod's last chip is still inside."""
    node = documents.load(Node, catalog.FOLDER / "clusters" / f"{name}.yaml")
    pod = node.pod_devices // node.devices_per_node
    inside, beyond = (catalog.find_cluster(f"{name}:{nodes}") for nodes in (pod, pod + 1))
    assert [tier.devices for tier in inside.tiers] == [node.devices_per_node, node.pod_devices]
    rates = [tier.bandwidth_bytes_per_second for tier in beyond.tiers]
    assert len(rates) == 3
    assert rates == sorted(rates, reverse=True)
    assert rates[1] > 10 * rates[2]


def test_a_bare_cluster_name_is_one_node():
    assert catalog.find_cluster("gb200-nvl72").devices == 72
    assert catalog.find_cluster("h100-sxm") == catalog.find_cluster("H100-SXM:1")


@given(st.integers(1, 10_000))
def test_devices_are_nodes_times_devices_per_node(nodes):
    assert catalog.find_cluster(f"h100-sxm:{nodes}").devices == 8 * nodes


@pytest.mark.parametrize("nodes", ["0", "x", "", "-1", "1.5", "8:2", "²"])
def test_bad_node_counts_are_refused_with_an_example(nodes):
    with pytest.raises(InputError, match="write NAME:NODES with a whole number") as caught:
        catalog.find_cluster(f"h100-sxm:{nodes}")
    assert repr(nodes) in str(caught.value)


def test_local_needs_a_profile():
    with pytest.raises(InputError, match="meshwright profile"):
        catalog.find_cluster("local")


@pytest.mark.parametrize("name", catalog.list_runtimes())
def test_every_runtime_loads_with_its_sources(name):
    runtime = catalog.find_runtime(name)
    assert runtime.name == name
    always = {"layer_host_seconds", "step_seconds", "context_bytes", "allocator_slack", "axes"}
    always |= {"chunks"} if runtime.chunks > 1 else set()
    assert always <= set(runtime.provenance) <= set(Runtime.model_fields)
    for field in ("stage_floor_seconds", "loss_passes", "logit_bytes", "activation_scale"):
        changed = getattr(runtime, field) != Runtime.model_fields[field].default
        assert not changed or field in runtime.provenance, f"{field} has no birth certificate"


def test_what_the_runtimes_offer():
    native, megatron = (catalog.find_runtime(name) for name in ("native", "megatron-core"))
    assert native.schedules == SCHEDULES
    assert native.recompute == ("none", "selective", "full")
    assert native.models == "runnable"
    assert set(native.axes) == set(AXES)
    assert native.shares_experts
    assert not native.overlaps_dp
    assert megatron.overlaps_dp
    assert megatron.layer_host_seconds == 2.3e-3
    assert megatron.context_bytes == pytest.approx(3.3 * 2**30)


@pytest.mark.parametrize(
    ("find", "wrong", "right"),
    [
        (catalog.find_model, "lama3.1-8b", "llama3.1-8b"),
        (catalog.find_cluster, "h10-sxm:4", "h100-sxm"),
        (catalog.find_accelerator, "h200-sxn", "h200-sxm"),
        (catalog.find_runtime, "megatron", "megatron-core"),
    ],
)
def test_a_wrong_name_suggests_the_nearest_and_who_lists_all(find, wrong, right):
    with pytest.raises(InputError, match=f"did you mean '{right}'") as caught:
        find(wrong)
    assert repr(wrong.partition(":")[0]) in str(caught.value)
    assert "`meshwright show` lists" in str(caught.value)


@pytest.mark.parametrize(
    ("find", "written", "name"),
    [
        (catalog.find_model, "Llama-3.1-8B", "llama3.1-8b"),
        (catalog.find_cluster, "H100_SXM:8", "h100-sxm:8"),
        (catalog.find_accelerator, "H200 SXM", "h200-sxm"),
        (catalog.find_runtime, "Megatron_Core", "megatron-core"),
    ],
)
def test_separators_tell_no_names_apart(find, written, name):
    assert find(written).name == name


def test_a_folder_is_no_other_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt-2").mkdir()
    with pytest.raises(InputError, match=r"gpt-2/config\.json"):
        catalog.find_model("gpt-2")


def test_a_name_like_nothing_still_lists_all():
    with pytest.raises(InputError, match="write one of") as caught:
        catalog.find_runtime("zzz")
    assert "did you mean" not in str(caught.value)


def test_a_name_too_long_for_a_file_is_unknown():
    with pytest.raises(InputError, match="no model is called"):
        catalog.find_model("a" * 300)


def test_one_entry_is_found_without_reading_the_others(monkeypatch):
    read, files = documents.read_mapping, []

    def recording(path):
        files.append(path.name)
        return read(path)

    monkeypatch.setattr(documents, "read_mapping", recording)
    catalog.find_model("gpt2")
    catalog.find_cluster("b200:4")
    catalog.find_runtime("native")
    assert files == ["gpt2.json", "index.yaml", "b200.yaml", "b200.yaml", "native.yaml"]


def test_models_from_files_and_folders(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    source = (catalog.FOLDER / "models" / "tiny-llama.json").read_text()
    (folder / "config.json").write_text(source)
    (tmp_path / "other.json").write_text(source)
    assert catalog.find_model(str(folder)).name == "my-model"
    assert catalog.find_model(str(folder / "config.json")).name == "my-model"
    assert catalog.find_model(str(tmp_path / "other.json")).name == "other"


def test_a_catalog_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    for name in ("gpt2", "l40s", "native"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert catalog.find_model("gpt2").layers == 12
    assert catalog.find_cluster("l40s").devices == 8
    assert catalog.find_runtime("native").name == "native"
    with pytest.raises(InputError, match=r"gpt2.config.json: no such file"):
        catalog.find_model("./gpt2")


def test_a_folder_without_a_slash_is_found(tmp_path, monkeypatch):
    (tmp_path / "checkpoint").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"config.json: no such file"):
        catalog.find_model("checkpoint")


def test_a_model_document_is_read_back(tmp_path):
    model = catalog.find_model("mistral-7b")
    path = documents.save(model, tmp_path / "m.json")
    assert catalog.find_model(str(path)) == model


def test_a_document_of_another_kind_is_refused(tmp_path):
    path = documents.save(catalog.find_runtime("native"), tmp_path / "r.json")
    with pytest.raises(InputError, match="a 'architecture/1' document is needed here"):
        catalog.find_model(str(path))
    assert catalog.find_runtime(str(path)) == catalog.find_runtime("native")


def test_a_cluster_document_may_name_its_accelerator(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: cluster/1\nname: mine\naccelerator: l40s\nnodes: 1\ndevices_per_node: 2\n"
        "tiers:\n  - {name: pcie, devices: 2, bandwidth: 20GB/s, latency: 10us}\n"
    )
    cluster = catalog.find_cluster(str(path))
    assert cluster.accelerator == catalog.find_accelerator("l40s")
    saved = documents.save(cluster, tmp_path / "whole.json")
    assert catalog.find_cluster(str(saved)) == cluster


def test_types():
    assert isinstance(catalog.find_model("gpt2"), ModelSpec)
    assert isinstance(catalog.find_cluster("l40s:2"), ClusterSpec)
