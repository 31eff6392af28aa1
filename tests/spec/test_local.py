"""The cluster `local`: the machine as its profile shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import catalog, documents
from planner.spec.cluster import ClusterSpec
from planner.spec.documents import InputError
from planner.spec.local import local_cluster
from planner.spec.profile import CollectiveFit, Machine, OperatorSample, Profile
from planner.spec.provenance import Provenance

BORN = Provenance(birth="measured", source="meshwright profile", date="2026-09-01")
CPU = Machine(kind="cpu", processor="Some CPU", cores=4, memory_bytes=16e9)
H200 = Machine(
    kind="cuda",
    processor="Some CPU",
    cores=16,
    memory_bytes=128e9,
    accelerator="NVIDIA H200",
    accelerators=2,
    accelerator_memory_bytes=150e9,
)


def linear(seconds: float, dtype: str = "fp32", phase: str = "forward", kind: str = "linear"):
    return OperatorSample(
        kind=kind,
        dims={"m": 100, "k": 200, "n": 50, "bias": 0},
        dtype=dtype,
        phase=phase,
        seconds=seconds,
        spread=0.1,
        repeats=5,
    )


def fit(op: str, ranks: int = 2, groups: int = 1, backend: str = "gloo", gigabytes: float = 1.0):
    return CollectiveFit(
        op=op,
        backend=backend,
        ranks=ranks,
        groups=groups,
        latency_seconds=12e-6,
        bandwidth_bytes_per_second=gigabytes * 1e9,
        median_error=0.1,
    )


def profile(machine: Machine = CPU, **changes) -> Profile:
    fields = {
        "machine": machine,
        "created": "2026-09-01",
        "operators": (linear(1e-3), linear(1e-4), linear(1e-5, phase="backward")),
        "fits": (fit("send_recv"), fit("all_reduce")),
        "slowdown": ((1, 1.0), (2, 1.25), (4, 2.0)),
        "memory_bandwidth_bytes_per_second": 20e9,
        "provenance": BORN,
    }
    return Profile(**{**fields, **changes})


def test_ranks_share_the_memory_and_the_cores():
    cluster = local_cluster(profile(), 4)
    assert (cluster.devices, cluster.nodes, cluster.backend) == (4, 1, "gloo")
    assert cluster.memory_bytes == 4e9
    assert cluster.shared_cores.cores == 4
    assert cluster.shared_cores.factor(4) == 2.0


def test_the_peak_is_the_best_forward_matrix_product_by_dtype():
    samples = (linear(1e-3), linear(1e-4), linear(1e-5, phase="backward"), linear(2e-4, "bf16"))
    device = local_cluster(profile(operators=samples), 1).accelerator
    assert device.peak_flops == {"fp32": pytest.approx(2e10), "bf16": pytest.approx(1e10)}
    assert device.matmul_flops == device.peak_flops
    assert device.matmul_efficiency == device.memory_efficiency == 1.0
    assert device.memory_bandwidth_bytes_per_second == 20e9
    assert device.provenance["peak_flops"] == BORN
    assert device.provenance["launch_seconds"].birth == "assumed"


def test_the_peak_is_that_of_one_rank_alone():
    alone = local_cluster(profile(busy_ranks=1), 2).accelerator
    beside = local_cluster(profile(busy_ranks=2), 2).accelerator
    assert beside.peak_flops["fp32"] == pytest.approx(1.25 * alone.peak_flops["fp32"])


def test_other_operators_make_no_peak():
    with pytest.raises(InputError, match="no forward `linear` sample"):
        local_cluster(profile(operators=(linear(1e-3, kind="gelu"),)), 1)


def test_send_recv_is_the_tier_as_it_is():
    tier = local_cluster(profile(), 2).tiers[0]
    assert (tier.devices, tier.bandwidth_bytes_per_second) == (2, 1e9)
    assert tier.latency_seconds == 12e-6


@given(st.integers(2, 8))
def test_a_ring_over_the_tier_gives_the_all_reduce_back(ranks):
    measured = fit("all_reduce", ranks=ranks)
    tier = local_cluster(profile(fits=(measured,)), ranks).tiers[0]
    size, steps = 1e7, 2 * (ranks - 1)
    ring = steps * (tier.latency_seconds + size / ranks / tier.bandwidth_bytes_per_second)
    assert ring == pytest.approx(12e-6 + size / 1e9)


def test_the_fit_that_keeps_most_devices_busy_counts():
    fits = (
        fit("send_recv", groups=1, gigabytes=3.0),
        fit("send_recv", groups=2, gigabytes=2.0),
        fit("send_recv", groups=8, gigabytes=1.0),
        fit("send_recv", groups=2, gigabytes=9.0, backend="nccl"),
    )
    cluster = local_cluster(profile(fits=fits), 4)
    assert cluster.tiers[0].bandwidth_bytes_per_second == 2e9
    born = cluster.provenance["local.bandwidth_bytes_per_second"]
    assert (born.birth, born.date) == ("fitted", BORN.date)
    assert "send_recv of 2 ranks, 2 at once" in born.source


def test_without_a_fit_only_one_device_can_be_planned():
    assert local_cluster(profile(fits=()), 1).devices == 1
    with pytest.raises(InputError, match="no send_recv or all_reduce fit"):
        local_cluster(profile(fits=(fit("broadcast"),)), 2)


def test_a_known_gpu_is_the_catalogs_with_the_drivers_memory():
    cluster = local_cluster(profile(H200, fits=(fit("send_recv", backend="nccl"),)), 2)
    known = catalog.find_accelerator("h200-sxm")
    assert cluster.backend == "nccl"
    assert cluster.shared_cores is None
    assert cluster.memory_bytes == 150e9
    assert cluster.accelerator.provenance["memory_bytes"] == BORN
    assert cluster.accelerator.peak_flops == known.peak_flops
    assert (
        cluster.accelerator.replace(memory_bytes=known.memory_bytes, provenance=known.provenance)
        == known
    )


def test_an_unknown_gpu_is_what_was_measured():
    machine = H200.replace(accelerator="NVIDIA Unheard-of")
    device = local_cluster(profile(machine), 1).accelerator
    assert (device.name, device.kind) == ("NVIDIA Unheard-of", "cuda")
    assert device.peak_flops == {"fp32": pytest.approx(2e10)}
    assert device.memory_bytes == 150e9
    unknown = machine.replace(accelerator_memory_bytes=None)
    with pytest.raises(InputError, match="accelerator_memory_bytes: missing"):
        local_cluster(profile(unknown), 1)


@pytest.mark.parametrize(("machine", "devices"), [(CPU, 0), (H200, 3), (H200, -1)])
def test_devices_that_are_not_there_are_refused(machine, devices):
    with pytest.raises(InputError, match=f"{devices} devices"):
        local_cluster(profile(machine), devices)


def test_a_local_cluster_survives_the_disk(tmp_path):
    cluster = local_cluster(profile(), 2)
    path = documents.save(cluster, tmp_path / "cluster.json")
    assert documents.load(ClusterSpec, path) == cluster
    assert catalog.find_cluster(str(path)) == cluster
