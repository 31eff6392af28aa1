"""Kineto traces: collectives by group and size, operators by shape, kernels, steps."""

import contextlib
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from profiler.imports import kineto
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source, read
from tests.profiler.imports.cases import SAMPLES, outcome

NCCL = "ncclDevKernel_Something_RING_LL(ncclDevKernelArgsStorage<4096ul>)"


def kernel(ts: float, dur: float, name: str = NCCL, **args) -> dict:
    return {"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": dur, "args": args}


def collective(ts: float, dur: float, name: str = "allreduce", **args) -> dict:
    values = {"Collective name": name, "dtype": "Float", "In msg nelems": 256}
    values |= {"Out msg nelems": 256, "Group size": 2, "Process Group Ranks": "[0, 1]"}
    return kernel(ts, dur, **(values | args))


def trace(*events: dict, rank: int = 0, devices: int = 8, world: int | None = None) -> Source:
    shared = {"backend": "nccl", "rank": rank} | ({"world_size": world} if world else {})
    card = {"name": "NVIDIA H200", "totalGlobalMem": 150e9}
    text = {
        "deviceProperties": [card] * devices,
        "distributedInfo": shared,
        "traceEvents": list(events),
    }
    return Source(SAMPLES / f"rank{rank}.json", json.dumps(text))


def imported(*sources: Source, **options):
    return kineto.read(sources, Wanted(**options)).document


def refused(*sources: Source) -> str:
    with pytest.raises(InputError) as error:
        imported(*sources)
    return str(error.value)


DTYPES = {"Float": 4, "BFloat16": 2, "Half": 2, "Double": 8, "Byte": 1, "float8_e4m3fn": 1}
NAMES = {
    "allreduce": ("all_reduce", 1, 1),
    "_allgather_base": ("all_gather", 1, 8),
    "_reduce_scatter_base": ("reduce_scatter", 8, 1),
    "all_to_allv": ("all_to_all", 1, 1),
    "broadcast": ("broadcast", 1, 1),
}


@given(
    st.sampled_from(sorted(NAMES)),
    st.sampled_from(sorted(DTYPES)),
    st.integers(1, 1 << 30),
    st.floats(0.1, 1e6),
    st.sampled_from([1, 2, 4, 8]),
)
def test_the_message_is_the_full_tensor_in_bytes(name, dtype, shard, microseconds, nodes):
    op, inside, outside = NAMES[name]
    ranks = [rank * nodes for rank in range(8)]
    event = collective(
        0.0,
        microseconds,
        name,
        **{
            "dtype": dtype,
            "In msg nelems": inside * shard,
            "Out msg nelems": outside * shard,
            "Group size": 8,
            "Process Group Ranks": json.dumps(ranks),
        },
    )
    (sample,) = imported(trace(event, world=64)).collectives
    assert (sample.op, sample.ranks, sample.groups, sample.nodes) == (op, 8, 8, nodes)
    assert sample.message_bytes == DTYPES[dtype] * max(inside, outside) * shard
    assert sample.seconds == pytest.approx(microseconds * 1e-6)


@given(
    st.lists(st.tuples(st.floats(1, 1e3), st.floats(0, 1e3), st.booleans()), min_size=1, max_size=9)
)
def test_of_several_ranks_the_last_one_to_come_counts(rounds):
    """One of two ranks waits in each round; the other's time is the transfer's."""
    events: list[list[dict]] = [[], []]
    for index, (transfer, wait, who) in enumerate(rounds):
        for rank in range(2):
            late = wait if rank == who else 0.0
            events[rank].append(collective(1e4 * index - late, transfer + late))
    (sample,) = imported(*(trace(*events[rank], rank=rank) for rank in range(2))).collectives
    transfers = sorted(transfer for transfer, _, _ in rounds)
    assert transfers[0] * 1e-6 <= sample.seconds * (1 + 1e-12)
    assert sample.seconds <= transfers[len(transfers) // 2] * 1e-6 * (1 + 1e-12)
    assert sample.repeats == len(rounds)


def test_the_samples_transfers_come_back():
    """60 us and 900 us in the files, plus waits that one of the two ranks never has."""
    profile = outcome("kineto").document
    found = {s.op: s for s in profile.collectives}
    assert found["all_gather"].message_bytes == 2 * 4194304
    assert found["all_gather"].seconds == pytest.approx(60e-6)
    assert (found["all_gather"].nodes, found["all_reduce"].nodes) == (1, 2)
    assert found["all_reduce"].seconds == pytest.approx(900e-6, rel=0.005)
    assert profile.trace.step_seconds == pytest.approx((9.1e-3, 9.11e-3, 9.12e-3))


def test_operators_are_their_kernels_forward_and_backward():
    """The backward of a product is both its gradients and the bias: 21 + 23 + 5 us."""
    found = {(s.kind, s.phase): s for s in outcome("kineto").document.operators}
    linear = found["linear", "forward"]
    assert linear.dims == {"m": 4096, "k": 1024, "n": 512, "bias": 1}
    assert linear.seconds == pytest.approx(21e-6)
    assert found["linear", "backward"].seconds == pytest.approx(49e-6)
    assert found["linear", "backward"].dims == linear.dims
    core = found["attention", "forward"]
    assert core.dims == {"batch": 2, "seq": 2048, "heads": 8, "kv_heads": 8, "head_dim": 64}
    assert (core.seconds, core.dtype) == (pytest.approx(50e-6), "bf16")
    assert found["attention", "backward"].seconds == pytest.approx(140e-6)


def test_kernels_add_up_by_name():
    kernels = outcome("kineto").document.trace.kernels
    assert [k.seconds for k in kernels] == sorted((k.seconds for k in kernels), reverse=True)
    events = [
        event
        for rank in range(2)
        for event in json.loads((SAMPLES / f"trace-rank{rank}.json").read_text())["traceEvents"]
        if event.get("cat") == "kernel"
    ]
    assert sum(k.launches for k in kernels) == len(events)
    assert sum(k.seconds for k in kernels) == pytest.approx(sum(e["dur"] for e in events) * 1e-6)
    families = {k.name[:9]: k.family for k in kernels}
    assert families["ncclDevKe"] == "collective"
    assert families["nvjet_tst"] == "matmul"
    assert families["void pyto"] == "attention"


def test_many_kernels_are_named_up_to_a_limit():
    events = [kernel(float(i), 1.0 + i, f"kernel{i}") for i in range(50)]
    kernels = imported(trace(*events)).trace.kernels
    assert len(kernels) == kineto.NAMED_KERNELS + 1
    assert kernels[0].name == "kernel49"
    assert (kernels[-1].name, kernels[-1].launches) == ("others", 10)


def test_packed_traces_are_the_same(tmp_path):
    plain = SAMPLES / "trace-rank0.json"
    packed = tmp_path / "trace-rank0.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    one, other = (kineto.read([read(path)], Wanted()).document for path in (plain, packed))
    kept = {"operators", "collectives", "trace", "machine"}
    assert one.model_dump(include=kept) == other.model_dump(include=kept)


def test_a_list_of_events_is_a_trace_without_a_machine():
    source = Source(SAMPLES / "bare.json", json.dumps([collective(0.0, 5.0)]))
    profile = imported(source)
    assert profile.machine.accelerator is None
    (sample,) = profile.collectives
    assert (sample.nodes, sample.groups) == (None, 1)
    (placed,) = imported(source, devices_per_node=1).collectives
    assert placed.nodes == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Collective name": None}, "no `Collective name`"),
        ({"Collective name": "gather"}, "gather is no collective of a training step"),
        ({"dtype": "Quarter"}, "dtype Quarter is unknown"),
        ({"In msg nelems": 0, "Out msg nelems": 0}, "allreduce of no elements"),
        ({"Group size": 1}, "a group of one rank"),
    ],
)
def test_kernels_that_say_too_little_are_counted(changes, why):
    made = kineto.read([trace(collective(0.0, 5.0, **changes))], Wanted())
    assert made.document.collectives == ()
    assert any(f"1 kernels left out: {why}" in note for note in made.notes)


def test_a_send_is_between_two_of_the_group():
    event = collective(0.0, 5.0, "send", **{"Group size": 4, "Process Group Ranks": "[0,8,16,24]"})
    (sample,) = imported(trace(event)).collectives
    assert (sample.op, sample.ranks, sample.nodes) == ("send_recv", 2, None)


def test_one_rank_is_told_that_others_help():
    notes = kineto.read([trace(collective(0.0, 5.0))], Wanted()).notes
    assert any("give the traces of the other ranks too" in note for note in notes)
    assert any("record_shapes=True" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "traceEvents: missing"),
        ('{"traceEvents": 3}', "traceEvents: missing"),
        ('{"traceEvents": []}', "no kernels of a GPU"),
        ('{"traceEvents": [1, null, "x"]}', "no kernels of a GPU"),
        ('{"traceEvents": [{"ph": "X", "name": "k", "ts": 0, "dur": -1}]}', "'k': ts=0, dur=-1"),
        ('{"traceEvents": [{"ph": "X", "name": "k", "ts": "a"}]}', "no time in microseconds"),
    ],
)
def test_bad_traces_are_refused(text, said):
    assert said in refused(Source(SAMPLES / "bad.json", text))


def test_a_trace_that_was_cut_off_names_its_line():
    text = (SAMPLES / "trace-rank0.json").read_text()
    with pytest.raises(InputError, match=r"line \d+: not valid JSON: .*cut off"):
        imported(Source(SAMPLES / "cut.json", text[: len(text) // 2]))


def test_ranks_and_devices_must_fit_together():
    again = refused(trace(collective(0.0, 5.0)), trace(collective(0.0, 5.0)))
    assert "rank 0, like" in again
    other = trace(collective(0.0, 5.0), rank=1)
    other = Source(other.path, other.text.replace("H200", "B200"))
    assert "traces of different devices" in refused(trace(collective(0.0, 5.0)), other)


weird = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ph", "cat", "name", "ts", "dur", "args"]), inner)
    ),
    max_leaves=12,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"ph": st.just("X"), "ts": st.floats(0, 9), "dur": st.floats(0, 9)},
            optional={
                "cat": st.sampled_from(["kernel", "cpu_op", "user_annotation"]) | weird,
                "name": st.sampled_from([NCCL, "aten::mm", "ProfilerStep#1"]) | weird,
                "args": weird
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "Collective name",
                            "Group size",
                            "In msg nelems",
                            "Process Group Ranks",
                            "External id",
                            "Input Dims",
                            "Input type",
                            "Sequence number",
                        ]
                    ),
                    weird,
                ),
            },
        ),
        max_size=6,
    )
)
def test_events_of_any_shape_are_read_or_refused(events):
    with contextlib.suppress(InputError):
        imported(Source(SAMPLES / "any.json", json.dumps({"traceEvents": events})))
