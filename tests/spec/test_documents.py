"""Documents: refused at the door with every problem, trusted inside, written whole or not."""

import os
import tempfile
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import documents
from planner.spec.cluster import Accelerator, ClusterSpec, SharedCores, Tier
from planner.spec.documents import Document, InputError
from planner.spec.layout import LayerChoice, Layout, Stage
from planner.spec.measured import Measured, StepTimes
from planner.spec.profile import (
    CollectiveFit,
    CollectiveSample,
    Machine,
    OperatorSample,
    Profile,
)
from planner.spec.provenance import Provenance
from planner.spec.runtime import Runtime
from planner.spec.timeline import MemoryPoint, Span, Timeline
from planner.spec.workload import Workload
from tests.spec.models import models

names = st.text(max_size=12).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))
positive = st.floats(1e-12, 1e18)
count = st.integers(1, 10**6)
ranks = st.integers(0, 64)
dtypes = st.sampled_from(["fp32", "bf16", "fp16", "fp8"])


def some(strategy):
    return st.lists(strategy, max_size=3).map(tuple)


provenance = st.builds(Provenance, birth=st.just("assumed"), source=names, date=st.none() | names)
tables = st.dictionaries(names, provenance, max_size=2)
workloads = st.builds(Workload, seq_len=count, global_batch=count, dtype=dtypes)
accelerators = st.builds(
    Accelerator,
    name=names,
    kind=st.sampled_from(["cuda", "cpu"]),
    memory_bytes=positive,
    memory_bandwidth_bytes_per_second=st.none() | positive,
    peak_flops=st.dictionaries(dtypes, positive),
    notes=names,
    provenance=tables,
)
slowdowns = st.dictionaries(st.integers(2, 64), st.floats(1.0, 100.0), max_size=3).map(
    lambda table: ((1, 1.0), *zip(sorted(table), sorted(table.values()), strict=True))
)
clusters = st.builds(
    lambda nodes, per, accelerator, cores, table: ClusterSpec(
        name="c",
        accelerator=accelerator,
        nodes=nodes,
        devices_per_node=per,
        tiers=(
            Tier(name="t", devices=nodes * per, bandwidth_bytes_per_second=1, latency_seconds=0),
        ),
        shared_cores=cores,
        provenance=table,
    ),
    count,
    count,
    accelerators,
    st.none() | st.builds(SharedCores, cores=count, slowdown=slowdowns),
    tables,
)


runtimes = st.builds(
    Runtime,
    name=names,
    schedules=some(st.sampled_from(["gpipe", "1f1b"])),
    zero_stages=some(st.integers(0, 3)),
    recompute=some(st.sampled_from(["none", "full"])),
    sequence_parallel=st.booleans(),
    overlaps_dp=st.booleans(),
    gradient_dtype=st.sampled_from(["fp32", "same", "fp32_of_bf16"]),
    master_weights=st.booleans(),
    flash_attention=st.booleans(),
    recompute_stops_early=st.booleans(),
    step_seconds=positive,
    provenance=tables,
)
layouts = st.builds(
    Layout,
    dp=st.integers(1, 8),
    tp=st.integers(1, 8),
    pp=st.integers(1, 8),
    micro_batch=st.integers(1, 8),
    zero=st.integers(0, 3),
    recompute=st.sampled_from(["none", "selective", "full"]),
    schedule=st.sampled_from(["gpipe", "1f1b"]),
)
spans = st.builds(
    lambda rank, start, length: Span(
        rank=rank, stream="compute", name="0F0", start_seconds=start, end_seconds=start + length
    ),
    ranks,
    positive,
    positive,
)
timelines = st.builds(
    Timeline,
    kind=st.sampled_from(["predicted", "measured"]),
    title=names,
    ranks=count,
    step_seconds=positive,
    spans=some(spans),
    memory=some(st.builds(MemoryPoint, rank=ranks, at_seconds=positive, held_bytes=positive)),
    peak_bytes=st.dictionaries(ranks, positive, max_size=3),
    capacity_bytes=st.none() | positive,
)
machines = st.builds(
    Machine, kind=st.just("cpu"), processor=names, cores=count, memory_bytes=positive
)
timed = {"seconds": positive, "spread": positive, "repeats": count}
samples = st.builds(
    OperatorSample,
    kind=names,
    dims=st.dictionaries(names, count, max_size=3),
    dtype=dtypes,
    phase=st.just("forward"),
    **timed,
)
exchange = {"op": st.just("all_reduce"), "backend": st.just("gloo"), "ranks": st.integers(2, 64)}
collectives = st.builds(CollectiveSample, message_bytes=positive, **exchange, **timed)
fits = st.builds(
    CollectiveFit,
    latency_seconds=positive,
    bandwidth_bytes_per_second=positive,
    median_error=positive,
    **exchange,
)
profiles = st.builds(
    Profile,
    machine=machines,
    created=names,
    operators=some(samples),
    collectives=some(collectives),
    fits=some(fits),
    slowdown=slowdowns,
    composition=st.dictionaries(st.sampled_from(["forward", "backward"]), positive),
    memory_bandwidth_bytes_per_second=st.none() | positive,
    provenance=provenance,
)
step_times = st.builds(StepTimes, median=positive, min=positive, max=positive, steps=some(positive))
runs = st.builds(
    Measured,
    layout=layouts,
    layer_counts=some(count),
    step_seconds=step_times,
    peak_bytes=st.dictionaries(ranks, positive, max_size=2),
    resident_bytes=st.dictionaries(ranks, positive, max_size=2),
    loss=some(st.floats(-1e6, 1e6)),
    gradient_norm=some(positive),
    world_size=count,
    backend=st.just("gloo"),
    warmup_steps=ranks,
    machine=machines,
    timeline=st.none() | timelines,
)


@given(st.one_of(workloads, accelerators, clusters, models(), runtimes, timelines, profiles, runs))
def test_load_of_save_is_the_document(document):
    with tempfile.TemporaryDirectory() as folder:
        path = documents.save(document, Path(folder) / "new" / "document.json")
        assert documents.load(type(document), path) == document


@given(layouts)
def test_a_layout_survives_json(layout):
    assert Layout.model_validate_json(layout.model_dump_json()) == layout


@given(workloads, st.integers(1, 99))
def test_replace_changes_only_what_it_names(workload, batch):
    other = workload.replace(global_batch=batch)
    assert other.global_batch == batch
    assert other.replace(global_batch=workload.global_batch) == workload


WORKLOAD = {"seq_len": 2048, "global_batch": 8}
ACCELERATOR = {"name": "card", "kind": "cuda"}


def refused(cls: type[Document], **data) -> str:
    with pytest.raises(InputError) as caught:
        documents.parse(cls, data, "here.yaml")
    return str(caught.value)


def test_all_problems_are_told_at_once_each_with_the_file():
    message = refused(Workload, seq_len=0, dtype="bf17", optimiser="adamw")
    lines = message.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("here.yaml: ") for line in lines)
    assert "seq_len: 0: input should be greater than or equal to 1" in message
    assert "global_batch: missing" in message
    assert "'bf17'" in message
    assert "optimiser: unknown key; did you mean 'optimizer'?" in message


def test_an_unknown_key_like_nothing_lists_the_known_ones():
    assert "known keys: seq_len, global_batch" in refused(Workload, **WORKLOAD, zzz=1)


def test_a_misspelt_key_inside_a_list_is_explained_by_its_own_class():
    tier = {"name": "t", "devices": 1, "bandwith": "1GB/s", "latency": "1us"}
    message = refused(
        ClusterSpec,
        name="c",
        accelerator={**ACCELERATOR, "memory": "1GB"},
        nodes=1,
        devices_per_node=1,
        tiers=[tier],
    )
    assert "tiers.0.bandwith: unknown key; did you mean 'bandwidth'?" in message
    assert "tiers.0.bandwidth_bytes_per_second: missing" in message


def test_units_at_the_door():
    card = documents.parse(
        Accelerator,
        {
            **ACCELERATOR,
            "memory": "80GiB",
            "memory_bandwidth": "3350GB/s",
            "peak_flops": {"bf16": "989TFLOP/s", "fp32": 67e12},
            "launch": "5us",
        },
        "here",
    )
    assert card.memory_bytes == 80 * 2**30
    assert card.memory_bandwidth_bytes_per_second == 3350e9
    assert card.peak_flops == {"bf16": 989e12, "fp32": 67e12}
    assert card.launch_seconds == pytest.approx(5e-6)


def test_a_number_under_the_full_name_is_in_that_unit():
    assert documents.parse(Accelerator, {**ACCELERATOR, "memory_bytes": 7}, "x").memory_bytes == 7


def test_a_bare_number_is_refused_with_both_ways_to_write_it():
    message = refused(Accelerator, **ACCELERATOR, memory=80)
    assert "80 has no unit; write memory: 80GiB, or memory_bytes: 80" in message


def test_a_wrong_unit_is_refused_under_either_name():
    for key in ("memory", "memory_bytes"):
        assert "'80GB/s' has no unit that can be read" in refused(
            Accelerator, **ACCELERATOR, **{key: "80GB/s"}
        )
    assert "'989' is not a speed" in refused(Accelerator, **ACCELERATOR, peak_flops={"bf16": "989"})


def test_bare_numbers_in_a_table_are_refused_too():
    refused(Accelerator, **ACCELERATOR, peak={"bf16": 989})


def test_the_same_quantity_twice_is_refused():
    message = refused(Accelerator, **ACCELERATOR, memory="80GB", memory_bytes=80e9)
    assert "say the same thing; keep one" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    assert "finite" in refused(Accelerator, **ACCELERATOR, price_usd_per_hour=value)


def test_another_schema_is_refused_and_named():
    message = refused(Workload, schema="plan/9", **WORKLOAD)
    assert "schema is 'plan/9', a 'workload/1' document is needed here" in message


def test_documents_carry_their_schema_also_inside_others():
    dumped = Workload(**WORKLOAD).model_dump()
    assert dumped["schema"] == "workload/1"
    assert next(iter(dumped)) == "schema"


def test_documents_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        Workload(**WORKLOAD).seq_len = 1


def test_yaml_reads_exponents_as_numbers(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text("name: card\nkind: cuda\nmemory_bytes: 1e9\n")
    assert documents.load(Accelerator, path).memory_bytes == 1e9


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "not valid json"),
        ("a.yaml", "a: [", "not valid yaml"),
        ("a.yaml", "a: 1\na: 2", "not valid yaml"),
        ("a.yaml", "", "holds nothing"),
        ("a.json", "[1]", "holds list"),
        ("a.json", "[" * 10_000, "not valid json"),
        ("a.yaml", "[" * 10_000, "not valid yaml"),
        ("a.json", '{"x": ' + "1" * 5_000 + "}", "not valid json"),
    ],
)
def test_files_that_are_no_mapping_are_refused_by_name(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        documents.read_mapping(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_a_folder_and_bytes_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        documents.load(Workload, tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        documents.load(Workload, tmp_path)
    (tmp_path / "raw.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        documents.load(Workload, tmp_path / "raw.json")


def test_a_failed_rename_keeps_the_old_file_and_leaves_no_rubbish(tmp_path, monkeypatch):
    path = documents.write_text(tmp_path / "plan.json", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        documents.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rubbish(tmp_path):
    path = documents.write_text(tmp_path / "plan.json", "old")
    with pytest.raises(UnicodeEncodeError):
        documents.write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        documents.write_text(tmp_path / "file" / "plan.json", "x")
    with pytest.raises(InputError, match=r"cannot be written.*; give another place"):
        documents.check_place(tmp_path / "file" / "plan.json")
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        documents.check_place(tmp_path)


def test_a_link_leads_to_the_file_that_is_replaced(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "plan.json")
    assert documents.write_text(tmp_path / "link.json", "x") == tmp_path / "link.json"
    assert (tmp_path / "plan.json").read_text() == "x"
    assert (tmp_path / "link.json").is_symlink()


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    documents.check_place(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    documents.write_text(pipe, "x")
    assert os.read(end, 2) == b"x"
    os.close(end)
    assert pipe.is_fifo()


def test_looking_at_a_place_leaves_nothing(tmp_path):
    documents.check_place(tmp_path / "new" / "plan.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_stages_and_choices_are_values():
    choice = LayerChoice(recompute="full", zero=1)
    assert Stage(first_layer=0, layers=(choice,)) == Stage(first_layer=0, layers=[choice])
    with pytest.raises(pydantic.ValidationError):
        LayerChoice(zero=4)
