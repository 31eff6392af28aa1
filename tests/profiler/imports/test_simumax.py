"""SimuMax: systems, their measured products, and models."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.graph import counts
from planner.spec.documents import InputError
from planner.spec.layer import MLP, Experts
from profiler.imports import simumax
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source
from tests.profiler.imports.cases import SAMPLES, outcome

SYSTEM = json.loads((SAMPLES / "simumax-system.json").read_text())
MODEL = json.loads((SAMPLES / "simumax-model.json").read_text())
EXPERTS = json.loads((SAMPLES / "simumax-experts.json").read_text())
GIB = 2**30


def system(data: object, **options):
    return simumax.read_system([Source(SAMPLES / "s.json", json.dumps(data))], Wanted(**options))


def model(data: object):
    source = Source(SAMPLES / "m.json", json.dumps(data))
    return simumax.read_model([source], Wanted()).document


def changed(*path_and_value):
    *path, last, value = path_and_value
    data = json.loads(json.dumps(SYSTEM))
    part = data
    for key in path:
        part = part[key]
    part[last] = value
    return data


def test_a_system_is_what_it_says():
    """28 us of a ring over 8 are 2 us per message; the node's 200 GiB/s serve 8 devices."""
    made = outcome("simumax system")
    cluster, device = made.document, made.document.accelerator
    fabric, network = cluster.tiers
    assert fabric.bandwidth_bytes_per_second == pytest.approx(300 * GIB * 0.6)
    assert fabric.latency_seconds == pytest.approx(2e-6)
    assert network.bandwidth_bytes_per_second == pytest.approx(200 * GIB * 0.8 / 8)
    assert network.latency_seconds == pytest.approx(20e-6)
    assert device.peak_flops == {"bf16": 4e14, "fp16": 4e14, "fp8": 8e14}
    assert (device.matmul_efficiency, device.memory_efficiency) == (0.72, 0.9)
    assert device.memory_bytes == 64 * GIB
    assert "--as profile" in made.notes[0]
    assert device.provenance["peak_flops"].source.startswith("SimuMax: simumax-system.json")


def test_pcie_systems_use_the_network_of_all_devices():
    networks = {"intra_with_pcie": True, "inter_node": SYSTEM["networks"]["inter_node"]}
    networks["intra_node_pcie_8x"] = SYSTEM["networks"]["low_intra_node"]
    cluster = system(changed("networks", networks)).document
    assert cluster.tiers[0].bandwidth_bytes_per_second == pytest.approx(150 * GIB * 0.5)
    assert cluster.tiers[0].latency_seconds == pytest.approx(10e-6)


sizes = st.integers(1, 1 << 17)
shares = st.floats(0.01, 1.5)


@given(sizes, sizes, sizes, shares, shares, shares, st.floats(1, 5000))
def test_products_are_flops_over_their_measured_rate(m, k, n, forward, inputs, weights, tflops):
    shape = "b=1, m={}, k={}, n={}, layout={}, accumulate=False, out_dtype=bf16"
    table = {
        shape.format(m, k, n, "TN"): forward,
        shape.format(m, n, k, "NN"): inputs,
        shape.format(n, m, k, "NT"): weights,
    }
    op = {"tflops": tflops, "efficient_factor": 0.5, "accurate_efficient_factor": table}
    data = changed("accelerator", "op", {"matmul": op})
    profile = system(data, target="profile").document
    found = {sample.phase: sample for sample in profile.operators}
    flops, rate = 2.0 * m * k * n, tflops * 1e12
    assert found["forward"].dims == {"m": m, "k": k, "n": n, "bias": 0}
    assert found["forward"].seconds == pytest.approx(flops / (rate * forward))
    backward = flops / (rate * inputs) + flops / (rate * weights)
    assert found["backward"].seconds == pytest.approx(backward)


def test_a_product_without_both_gradients_has_no_backward():
    made = outcome("simumax products")
    found = [(s.dims["n"], s.phase) for s in made.document.operators]
    assert found == [(1024, "forward"), (1024, "backward"), (512, "forward")]
    assert "1 shapes of other operators left out" in made.notes[0]


def test_a_dense_model_has_its_parameters():
    made, h = model(MODEL), 2048
    attention = h * 16 * 128 * 2 + h * 4 * 128 * 2
    layer = attention + 3 * h * 5632 + 2 * h
    assert counts.parameters(made) == 12 * layer + 2 * 32000 * h + h
    plain = model({**MODEL, "use_swiglu": False})
    assert isinstance(plain.layer.feed_forward, MLP)
    assert (plain.layer.feed_forward.gated, plain.norm) == (False, "layernorm")


def test_experts_and_latent_attention():
    made = model(EXPERTS)
    dense, sparse = made.main.kinds
    assert made.main.order == (0, 1, 1, 1, 1, 1)
    assert isinstance(dense.feed_forward, MLP)
    assert isinstance(sparse.feed_forward, Experts)
    assert (sparse.feed_forward.experts, sparse.feed_forward.per_token) == (16, 4)
    assert sparse.feed_forward.shared is not None
    attention = sparse.attention
    assert (attention.head_dim, attention.value_dim, attention.rotary_dim) == (96, 64, 32)
    assert attention.latent is not None
    assert (attention.latent.query_rank, attention.latent.kv_rank) == (256, 128)
    assert len(model({**EXPERTS, "dense_layers": 0}).main.kinds) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("networks", {}), "networks.high_intra_node: missing"),
        (changed("accelerator", "op", {}), "accelerator.op.default: missing"),
        (changed("accelerator", "mem_gbs", 0), "accelerator.mem_gbs: 0 must be above 0"),
        (changed("num_per_node", 0), "num_per_node: 0 must be at least 1"),
        (
            changed("accelerator", "op", "matmul", "accurate_efficient_factor", {"m=3": 0.5}),
            "'m=3' is no shape",
        ),
    ],
)
def test_bad_systems_are_refused_by_key(data, said):
    with pytest.raises(InputError) as error:
        system(data)
    assert said in str(error.value)


def test_a_system_without_shapes_makes_no_profile():
    data = changed("accelerator", "op", "matmul", "accurate_efficient_factor", {})
    with pytest.raises(InputError, match="leave out --as profile"):
        system(data, target="profile")
    assert system(data).notes == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_num": 0}, "layer_num: 0 must be at least 1"),
        ({"kv_head_num": 3}, "not a multiple of kv_heads=3"),
        ({"use_swiglu": 1}, "use_swiglu: 1 is neither true nor false"),
        ({"expert_num": 8}, "topk: missing"),
    ],
)
def test_bad_models_are_refused_by_key(changes, said):
    with pytest.raises(InputError) as error:
        model({**MODEL, **changes})
    assert said in str(error.value)


def test_more_dense_layers_than_layers_are_refused():
    with pytest.raises(InputError, match="dense_layers: 9 is more than the 6 layers"):
        model({**EXPERTS, "dense_layers": 9})
