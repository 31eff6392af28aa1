"""Galvatron: bandwidths as clusters, the other tables as profiles."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.collectives import BANDWIDTH_FACTOR, CollectiveTimes
from planner.spec.documents import InputError
from profiler.imports import galvatron
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source
from tests.profiler.imports.cases import SAMPLES, outcome

RATES = {
    "allreduce_size_16_consec_1": 44.0,
    "allreduce_size_8_consec_1": 160.0,
    "allreduce_size_8_consec_0": 30.0,
}
NAME = "allreduce_bandwidth_2nodes_8gpus_per_node.json"
MIB = 2**20


def imported(*tables: object, name: str = NAME, **options):
    sources = [Source(SAMPLES / name, json.dumps(table)) for table in tables]
    return galvatron.read(sources, Wanted(**{"accelerator": "a100-80", **options})).document


def refused(*tables: object, name: str = NAME, **options) -> str:
    with pytest.raises(InputError) as error:
        imported(*tables, name=name, **options)
    return str(error.value)


@given(st.floats(1, 1e3), st.floats(0.1, 0.9))
def test_a_large_all_reduce_reaches_the_measured_bus_bandwidth(fabric, share):
    """Inside a node and over both: size * 2(n-1)/n / time is what the file says."""
    table = {"allreduce_size_8_consec_1": fabric, "allreduce_size_16_consec_1": share * fabric}
    times = CollectiveTimes(imported(table), None)
    for ranks, rate in ((8, fabric), (16, share * fabric)):
        seconds = float(times.seconds("all_reduce", ranks, 1, 1, 1e14))
        bus = BANDWIDTH_FACTOR["all_reduce"](ranks) * 1e14 / seconds / 1e9
        assert bus == pytest.approx(rate, rel=0.01)


def test_a_cluster_says_which_key_it_rests_on():
    cluster = outcome("galvatron bandwidths").document
    assert [(t.name, t.devices) for t in cluster.tiers] == [("fabric", 8), ("network", 16)]
    born = cluster.provenance["network.bandwidth_bytes_per_second"]
    assert born.birth == "measured"
    assert "allreduce_size_16_consec_1 / 8" in born.source
    assert cluster.provenance["network.latency_seconds"].birth == "assumed"


def test_without_a_large_group_the_stages_say_the_networks_rate():
    table = {"allreduce_size_8_consec_1": 160.0}
    cluster = imported(table, {"pp_size_2": 8.0, "pp_size_4": 9.0})
    assert cluster.tiers[1].bandwidth_bytes_per_second == 8e9
    assert "no pp_size; give the p2p_bandwidth file too" in refused(table)
    assert len(imported(table, nodes=1).tiers) == 1


def test_the_shape_comes_from_the_name_or_the_user():
    assert "pass --nodes and --devices-per-node" in refused(RATES, name="rates.json")
    cluster = imported(RATES, name="rates.json", nodes=4, devices_per_node=8)
    assert (cluster.devices, cluster.tiers[-1].devices) == (32, 32)


@given(
    st.sampled_from([("allreduce", "all_reduce"), ("all2all", "all_to_all")]),
    st.dictionaries(st.integers(1, 4096), st.floats(0.001, 1e4), min_size=1, max_size=6),
    st.integers(2, 64),
)
def test_times_come_back_from_any_table(names, times, ranks):
    table = {f"{names[0]}_size_{ranks}_{size}MB_time": ms for size, ms in times.items()}
    found = imported(table, name="sp_time_2nodes_8gpus_per_node.json").collectives
    assert {s.message_bytes: s.seconds for s in found} == pytest.approx(
        {size * MIB: ms * 1e-3 for size, ms in times.items()}
    )
    assert {(s.op, s.ranks, s.nodes) for s in found} == {(names[1], ranks, -(-ranks // 8))}


@given(st.floats(0.01, 1e3), st.integers(1, 64), st.integers(1, 1 << 16))
def test_layers_are_those_of_one_sequence_times_the_batch(ms, batch, seq):
    table = {f"layertype_0_bsz{batch}_seq{seq}": ms, f"layertype_other_bsz{batch}_seq{seq}": 1.0}
    (sample,) = imported(table, name="computation_profiling_bf16_x.json").layers
    assert sample.seconds == pytest.approx(ms * 1e-3 * batch)
    assert (sample.batch, sample.seq_len, sample.dtype) == (batch, seq, "bf16")


def test_without_layertypes_two_depths_make_a_layer():
    table = {"layernum[2]_bsz4_seq128": 10.0, "layernum[6]_bsz4_seq128": 22.0}
    (sample,) = imported(table).layers
    assert (sample.batch, sample.seconds) == (4, pytest.approx(3e-3))
    worse = {"layernum[2]_bsz4_seq128": 10.0, "layernum[6]_bsz4_seq128": 9.0}
    assert "6 layers take no longer than 2" in refused(worse)


def test_a_profile_of_all_tables():
    profile = outcome("galvatron profile").document
    assert profile.overlap_slowdown == 1.14
    assert {m.tp: m.activation_bytes for m in profile.layer_memory} == {
        1: 400 * MIB,
        2: 210 * MIB,
    }
    assert {m.parameter_bytes for m in profile.layer_memory} == {100 * MIB}
    assert {(m.seq_len, m.sequence_parallel, m.checkpoint_bytes) for m in profile.layer_memory} == {
        (2048, True, 16 * MIB)
    }
    assert len(profile.collectives) == 4


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({**RATES, "allreduce_size_8_consec_1": 0}, "allreduce_size_8_consec_1: 0 must be above 0"),
        ({"allreduce_size_16_consec_1": 44.0}, "with N up to 8"),
        ({"overlap_coe": 0.5}, "overlap_coe: 0.5 must be at least 1"),
        ({"allreduce_size_1_4MB_time": 1.0}, "a group of 1 sends nothing"),
        ({"layertype_0_bsz0_seq8": 1.0}, "a batch or sequence of 0"),
        ({"layertype_0_sp": {"x": {}}}, "layertype_0_sp.x: is no length of a sequence"),
        ({"layertype_0": {"parameter_size": 1.0}}, "tp_activation_per_bsz_dict: missing"),
        ({"speed": 1}, "no key of a table of Galvatron"),
    ],
)
def test_bad_tables_are_refused_by_key(table, said):
    assert said in refused(table)


def test_clusters_and_profiles_are_imported_apart():
    assert "import them apart" in refused(RATES, {"overlap_coe": 1.1})
    assert "pass --accelerator" in refused(RATES, accelerator=None)
