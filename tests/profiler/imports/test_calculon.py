"""Calculon: systems of both ages and applications, by their own rules."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.collectives import CollectiveTimes
from planner.graph import counts
from planner.spec.documents import InputError
from profiler.imports import calculon
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source
from tests.profiler.imports.cases import SAMPLES, outcome

SYSTEM = json.loads((SAMPLES / "calculon-system.json").read_text())
APPLICATION = json.loads((SAMPLES / "calculon-application.json").read_text())


def system(data: object, **options):
    return calculon.read_system([Source(SAMPLES / "s.json", json.dumps(data))], Wanted(**options))


def application(data: object, **options):
    source = Source(SAMPLES / "a.json", json.dumps(data))
    return calculon.read_application([source], Wanted(**options))


def changed(*path_and_value):
    *path, last, value = path_and_value
    data = json.loads(json.dumps(SYSTEM))
    part = data
    for key in path:
        part = part[key]
    part[last] = value
    return data


def test_a_system_is_what_it_says():
    cluster = outcome("calculon system").document
    device = cluster.accelerator
    assert (cluster.nodes, cluster.devices_per_node, cluster.devices) == (8, 4, 32)
    assert device.peak_flops == {"fp16": 5e14, "bf16": 5e14}
    assert device.matmul_efficiency == 0.8
    assert (device.memory_bytes, device.memory_bandwidth_bytes_per_second) == (64 * 2**30, 2e12)
    assert device.memory_efficiency == 0.85
    assert [t.bandwidth_bytes_per_second for t in cluster.tiers] == pytest.approx([150e9, 18e9])
    born = cluster.provenance["network1.latency_seconds"]
    assert (born.birth, born.source) == ("assumed", "Calculon: calculon-system.json: networks[1]")


@given(st.floats(1e6, 1e10), st.sampled_from([2, 4]))
def test_large_collectives_take_what_calculon_says(size, ranks):
    """scale 2, offset -1: latency + 2 (n-1)/n size / (bandwidth * efficiency)."""
    cluster = outcome("calculon system").document
    theirs = 2 * (ranks - 1) / ranks * size / (200e9 * 0.75)
    ours = float(CollectiveTimes(cluster, None).seconds("all_reduce", ranks, 1, 1, size))
    assert theirs <= ours <= theirs + 2 * (ranks - 1) * 5e-6 * (1 + 1e-9)


def test_older_systems_have_their_tables_by_dtype():
    matrix = {"tflops": 500, "gflops_efficiency": {"float16": [[64, 0.8], [0, 0.1]]}}
    old = system(changed("matrix", matrix)).document
    assert old.accelerator.peak_flops == {"fp16": 5e14, "bf16": 5e14}
    assert old.accelerator.matmul_efficiency == 0.8


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("networks", []), "networks: is empty"),
        (changed("networks", 0, "bandwidth", -3), "networks[0].bandwidth: -3 must be above 0"),
        (changed("networks", 1, "efficiency", 2), "networks[1].efficiency: 2 must be above 0"),
        (changed("networks", 0, "size", 8192), "tiers must grow"),
        (changed("networks", 0, "size", 2.5), "networks[0].size: 2.5 is no whole number"),
        (changed("mem1", "GiB", "lots"), "mem1.GiB: 'lots' is no finite number"),
        (changed("mem1", "MB_efficiency", [3]), "mem1.MB_efficiency: is no table"),
        (changed("matrix", "float16", None), "matrix.float16: None is no object"),
        (
            changed("matrix", {"int4": {"tflops": 1, "gflops_efficiency": [[0, 1]]}}),
            "matrix.float16",
        ),
        ({"networks": SYSTEM["networks"]}, "mem1: missing (there is networks)"),
    ],
)
def test_bad_systems_are_refused_by_key(data, said):
    with pytest.raises(InputError) as error:
        system(data)
    assert said in str(error.value)


def test_an_application_is_a_gpt3():
    made = application(APPLICATION, vocab=1000)
    model, hidden, layers = made.document, 2048, 24
    assert made.notes == ()
    block = 12 * hidden**2 + 13 * hidden  # weights, biases and two norms
    tables = (1000 + 1024) * hidden
    assert counts.parameters(model) == layers * block + tables + 2 * hidden
    assert "vocabulary of 1000 not from the file" in model.source


def test_without_a_vocabulary_megatrons_is_taken_and_said():
    made = application(APPLICATION)
    assert made.document.vocab == calculon.VOCAB
    assert "has no vocabulary; 51200 (--vocab) taken" in made.notes[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden": 0}, "hidden: 0 must be at least 1"),
        ({"num_blocks": 10**9}, "num_blocks: 1000000000 must be at least 1 and at most 100000"),
        ({"attn_heads": True}, "attn_heads: True is no finite number"),
        ({"seq_size": 10**400}, "seq_size"),
    ],
)
def test_bad_applications_are_refused_by_key(changes, said):
    with pytest.raises(InputError) as error:
        application({**APPLICATION, **changes})
    assert said in str(error.value)


def test_one_file_makes_one_document():
    sources = [Source(SAMPLES / f"{i}.json", json.dumps(SYSTEM)) for i in range(2)]
    with pytest.raises(InputError, match="import them apart"):
        calculon.read_system(sources, Wanted())
