"""nccl-tests: tables of any content parse back to their numbers; bad ones are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.collectives import BANDWIDTH_FACTOR
from planner.spec.documents import InputError
from profiler.imports import nccl_json, nccl_text
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source
from tests.profiler.imports.cases import SAMPLES, outcome

OPS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
}
microseconds = st.floats(0.01, 9e6).map(lambda t: float(f"{t:.2f}"))
timings = st.dictionaries(
    st.integers(1, 1 << 36), st.tuples(microseconds, microseconds), min_size=1, max_size=8
)


def ranks_text(hosts: int, per_host: int, groups: int = 1) -> str:
    lines = [
        f"#  Rank {h * per_host + d:2d} Group {(h * per_host + d) % groups:2d} Pid   4711 on "
        f"host-{h} device {d:2d} [0000:{d:02x}:00] Some Card 80GB"
        for h in range(hosts)
        for d in range(per_host)
    ]
    return "# Using devices\n" + "\n".join(lines) + "\n"


def run_text(test, times, hosts=1, per_host=2, groups=1, iters=20, stamp="", statistics=False):
    begin = f"# Collective test starting: /x/{test}_perf\n# nThread 1 nGpus 1 iters: {iters}\n"
    more = " i_min i_max i_p99 i_cv%" if statistics else ""
    half = "time algbw busbw #wrong" + more
    lines = [f"#  size count type redop root {half} {half}" + (" timestamp" if stamp else "")]
    tail = " 1.0 2.0 2.0 5.0" if statistics else ""
    for size, (out, inside) in times.items():
        cells = [f"{t:.2f} 1.00 1.00 {wrong}{tail}" for t, wrong in ((out, 0), (inside, "0"))]
        lines.append(f" {size} {size} uint8 none -1 {cells[0]} {cells[1]}{stamp}")
    ends = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 1.0\n"
    return begin + ranks_text(hosts, per_host, groups) + "\n".join(lines) + "\n" + ends


def imported(text: str, name: str = "out.txt", **options):
    source = Source(SAMPLES / name, text)
    reader = nccl_json if text.lstrip().startswith("{") else nccl_text
    return reader.read([source], Wanted(**options)).document


def refused(text: str, name: str = "out.txt", **options) -> str:
    with pytest.raises(InputError) as error:
        imported(text, name, **options)
    return str(error.value)


@given(
    st.sampled_from(sorted(OPS)),
    timings,
    st.integers(1, 3),
    st.integers(2, 4),
    st.booleans(),
    st.sampled_from(["", " 2026-01-02 03:04:05"]),
    st.sampled_from(["", "[1,0]<stdout>:", "[1,0]<stdout>: ", "0: "]),
)
def test_numbers_come_back_from_any_table(test, times, hosts, per_host, more, stamp, prefix):
    text = run_text(test, times, hosts, per_host, stamp=stamp, statistics=more)
    profile = imported("".join(prefix + line + "\n" for line in text.splitlines()))
    expected = {
        (size, place): t * 1e-6
        for size, both in times.items()
        for place, t in zip((False, True), both, strict=True)
    }
    found = {(s.message_bytes, s.in_place): s.seconds for s in profile.collectives}
    assert found == pytest.approx(expected)
    for sample in profile.collectives:
        assert (sample.op, sample.backend) == (OPS[test], "nccl")
        assert (sample.ranks, sample.groups, sample.nodes) == (hosts * per_host, 1, hosts)
        assert sample.repeats == 20
        assert sample.spread == (pytest.approx(0.06745) if more else None)
    assert profile.machine.accelerator == "Some Card 80GB"
    assert profile.machine.accelerators == per_host
    assert profile.provenance.birth == "measured"
    assert "out.txt" in profile.provenance.source


@given(timings)
def test_json_and_text_of_one_run_say_the_same(times):
    results = [
        {"size": size, "count": size, "type": "uint8", "redop": "none", "root": "    -1"}
        | {"out_of_place": {"time": out, "alg_bw": 1.0, "bus_bw": 1.0, "nwrong": 0.0}}
        | {"in_place": {"time": inside, "alg_bw": 1.0, "bus_bw": "nan", "nwrong": 0.0}}
        for size, (out, inside) in times.items()
    ]
    devices = [
        {"rank": r, "group": 0, "hostname": "host-0", "device": r, "device_info": "Some Card 80GB"}
        for r in range(2)
    ]
    document = {
        "args": ["/x/all_gather_perf", "-J", "x"],
        "config": {"nthreads": 1, "ngpus": 1, "iterations": 20, "devices": devices},
        "results": results,
    }
    from_json, from_text = imported(json.dumps(document)), imported(run_text("all_gather", times))
    assert from_json.machine == from_text.machine
    assert from_json.collectives == from_text.collectives
    devices_above = {**document, "devices": devices, "config": {"nthreads": 1, "ngpus": 1}}
    assert len(imported(json.dumps(devices_above)).collectives) == 2 * len(times)


def test_the_printed_bandwidth_is_that_of_the_sample():
    """algbw = size / time and busbw = factor * algbw: sizes mean the same here and there."""
    sample = next(s for s in outcome("nccl-tests text").document.collectives if not s.in_place)
    row = next(
        line.split()
        for line in (SAMPLES / "all_reduce-16xH100.txt").read_text().splitlines()
        if line.split()[:1] == [str(int(sample.message_bytes))]
    )
    algorithm = sample.message_bytes / sample.seconds / 1e9
    assert algorithm == pytest.approx(float(row[6]), abs=0.01)
    factor = BANDWIDTH_FACTOR["all_reduce"](sample.ranks)
    assert algorithm * factor == pytest.approx(float(row[7]), abs=0.01)


def test_several_files_make_one_profile(tmp_path):
    sources = [
        Source(tmp_path / f"{test}.txt", run_text(test, {1024: (5.0, 4.0)}).split("\n", 1)[1])
        for test in ("all_reduce", "allgather", "reduce-scatter", "alltoall", "broadcast")
    ]
    profile = nccl_text.read(sources, Wanted()).document
    assert [s.op for s in profile.collectives[::2]] == list(OPS.values())
    assert "all_reduce.txt, allgather.txt" in profile.provenance.source


def test_runs_after_one_another_keep_their_names_and_devices():
    text = run_text("all_reduce", {8: (1.0, 1.0)}) + run_text("all_gather", {8: (2.0, 2.0)}, 2, 4)
    ends = "# Collective test concluded: /x/all_reduce_perf\n"
    found = imported(text + ends).collectives
    assert [(s.op, s.ranks, s.nodes) for s in found[::2]] == [
        ("all_reduce", 2, 1),
        ("all_gather", 8, 2),
    ]


def test_split_runs_are_groups_at_once():
    found = imported(run_text("all_reduce", {8: (1.0, 1.0)}, hosts=2, per_host=4, groups=4))
    assert {(s.ranks, s.groups, s.nodes) for s in found.collectives} == {(2, 4, 2)}


@pytest.mark.parametrize(("hosts", "groups", "nodes"), [(1, 2, 1), (2, 1, 2)])
def test_sendrecv_is_a_message_between_two(hosts, groups, nodes):
    found = imported(run_text("sendrecv", {8: (1.0, 1.0)}, hosts, per_host=4)).collectives
    assert {(s.op, s.ranks, s.groups, s.nodes) for s in found} == {("send_recv", 2, groups, nodes)}


def test_sizes_of_zero_and_all_to_all_in_place_say_nothing():
    text = run_text("alltoall", {64: (5.0, 4.0)}).replace(" 0\n", " N/A\n")
    text = text.replace(" 64 64 uint8", " 0 0 uint8 none -1 0.1 0 0 0 0.1 0 0 N/A\n 64 64 uint8")
    assert [(s.message_bytes, s.in_place) for s in imported(text).collectives] == [(64, False)]


def test_what_training_does_not_use_is_left_out():
    both = run_text("gather", {8: (1.0, 1.0)}) + run_text("all_reduce", {8: (1.0, 1.0)})
    made = nccl_text.read([Source(SAMPLES / "x.txt", both)], Wanted())
    assert {s.op for s in made.document.collectives} == {"all_reduce"}
    assert "gather is no collective of a training step" in made.notes[0]
    assert "gather is no collective" in refused(run_text("gather", {8: (1.0, 1.0)}))


GOOD = run_text("all_reduce", {1024: (5.0, 4.0), 2048: (6.0, 5.0)})
NO_DEVICES = "\n".join(line for line in GOOD.splitlines() if "Rank" not in line)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("1.00 0 4.00", "1.00 3 4.00"), "line 7: 3 wrong values at 1024 bytes"),
        (GOOD.replace("values : 0 OK", "values : 9 FAILED"), "9 values out of bounds"),
        (GOOD.replace("root time", "root cputime"), "without -C 1"),
        (GOOD.replace("5.00 1.00 1.00 0", "5.00 1.00", 1), "11 columns, the header has 13"),
        (GOOD[: GOOD.index("2048") + 40], "columns, the header has 13"),
        (GOOD.replace("#  size", "#  sizes"), "a row without its header"),
        (GOOD.replace("5.00", "fast"), "column time: 'fast' is no number"),
        (GOOD.replace("5.00", "-1"), "column time: '-1' is no number"),
        (GOOD.replace("5.00", "0.00"), "more iterations"),
        (GOOD[: GOOD.index(" 1024")], "no row of results"),
        (NO_DEVICES, "pass --ranks N"),
        (GOOD.replace("#  Rank  1", "#  rank  1"), "a group of 1 rank"),
        (GOOD.replace("Some Card 80GB", "Other", 1), "of different devices"),
    ],
)
def test_bad_texts_are_refused_by_line(text, said):
    assert said in refused(text)
    assert refused(text).startswith(str(SAMPLES))


def test_a_text_without_devices_or_name_takes_the_users_word():
    named = NO_DEVICES.split("\n", 1)[1]
    assert "pass --op" in refused(named, ranks=8)
    found = imported(named, ranks=8, nodes=2, op="all_gather").collectives
    assert {(s.op, s.ranks, s.nodes) for s in found} == {("all_gather", 8, 2)}
    assert "'bcast' is no test" in refused(named, ranks=8, op="bcast")


JSON = json.loads((SAMPLES / "sendrecv.json").read_text())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"results": []}, "results: empty"),
        ({"results": 3}, "results: is no list of objects"),
        ({"config": None}, "config: None is no object"),
        ({"out_of_bounds": {"count": 4, "okay": "false"}}, "out_of_bounds: 4 values"),
        ({"results": [{"size": -1}]}, "results[0].size: -1 must be at least 0"),
        ({"results": [{"size": 1, "in_place": {"cpu_time": 1}}]}, "without -C 1"),
        ({"results": [{"size": 1, "in_place": {"time": "x"}}]}, "in_place.time: 'x' is no finite"),
        (
            {"results": [{"size": 8, "in_place": {"time": 1.0, "nwrong": 2.0}}]},
            "results[0].in_place: 2 wrong values",
        ),
    ],
)
def test_bad_json_is_refused_by_key(changes, said):
    assert said in refused(json.dumps({**JSON, **changes}), "out.json")
