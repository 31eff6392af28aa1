import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schedule.action import SENDS
from planner.spec.layout import Layout
from planner.spec.timeline import MemoryPoint, Span, Timeline
from reports.kinds import action_of
from reports.trace import trace_events, write_trace
from tests.reports.conftest import PIPELINE, make_timeline

NAMES = st.sampled_from(
    ["0F0", "0B0", "1F1", "0SEND_F0", "1RECV_F0", "1SEND_B0", "0RECV_B0", "0OPTIMIZER", "<odd>"]
)
NANOSECONDS = st.integers(min_value=0, max_value=60)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    spans = []
    for _ in range(draw(st.integers(0, 14))):
        start, end = sorted((draw(NANOSECONDS), draw(NANOSECONDS)))
        stream = draw(st.sampled_from(["compute", "pp", "dp"]))
        spans.append(
            Span(
                rank=draw(st.integers(0, 2)),
                stream=stream,
                name=draw(NAMES),
                start_seconds=start / 3e9,
                end_seconds=end / 3e9,
            )
        )
    return Timeline(kind="measured", title="t", ranks=3, step_seconds=1e-6, spans=tuple(spans))


def slices_by_thread(events: list[dict]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = round(event["ts"] * 1e3)
            found[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1e3)))
    return found


@given(timelines())
def test_slices_on_one_thread_nest_or_stand_apart(timeline: Timeline) -> None:
    events = trace_events(timeline)
    for slices in slices_by_thread(events).values():
        for i, (start, end) in enumerate(slices):
            for other_start, other_end in slices[i + 1 :]:
                apart = end <= other_start or other_end <= start
                inside = start <= other_start and other_end <= end
                around = other_start <= start and end <= other_end
                assert apart or inside or around
    assert sum(map(len, slices_by_thread(events).values())) == len(timeline.spans)


@given(timelines())
def test_events_are_ordered_in_time(timeline: Timeline) -> None:
    times = [event["ts"] for event in trace_events(timeline) if event["ph"] != "M"]
    assert all(a <= b for a, b in pairwise(times))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(1, 1, 1), (1, 1, 3), (2, 1, 2), (2, 2, 2), (1, 2, 4)]),
    st.integers(1, 4),
    st.sampled_from(["predicted", "measured"]),
)
def test_every_send_has_an_arrow_to_its_receive(
    degrees: tuple[int, int, int], microbatches: int, kind: str
) -> None:
    dp, tp, pp = degrees
    layout = Layout(dp=dp, tp=tp, pp=pp)
    timeline = make_timeline(layout, microbatches, kind)
    events = trace_events(timeline, layout=layout)
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    sends = [s for s in timeline.spans if (a := action_of(s)) and a.kind in SENDS]
    assert len(starts) == len(ends) == len(sends)
    slices = [e for e in events if e["ph"] == "X"]
    for arrow, start in starts.items():
        end = ends[arrow]
        sent, received = under(slices, start), under(slices, end)
        assert start["ts"] <= end["ts"]
        assert any(is_pair(a, b) for a in sent for b in received)
        left, right = layout.coordinates(start["pid"]), layout.coordinates(end["pid"])
        assert left.pop("pp") - right.pop("pp") in (-1, 1)
        assert left == right


def under(slices: list[dict], flow: dict) -> list[str]:
    return [
        e["name"]
        for e in slices
        if (e["pid"], e["tid"]) == (flow["pid"], flow["tid"])
        and e["ts"] <= flow["ts"] <= e["ts"] + e["dur"] + 1e-9
    ]


def is_pair(sent: str, received: str) -> bool:
    send, receive = sent.partition("SEND_"), received.partition("RECV_")
    offset = 1 if send[2][:1] == "F" else -1
    return bool(send[1] and receive[1]) and (
        int(receive[0]) == int(send[0]) + offset and send[2] == receive[2]
    )


def test_receives_and_sends_have_their_own_threads() -> None:
    events = trace_events(make_timeline(PIPELINE, 4))
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"
    }
    found = {threads[e["pid"], e["tid"]] for e in events if e.get("cat") in ("send", "receive")}
    assert found - {"pp"} == {"pp send", "pp receive"}


def test_a_small_trace_to_the_letter() -> None:
    spans = (
        Span(rank=1, stream="compute", name="1F0", start_seconds=0.0, end_seconds=0.25),
        Span(rank=1, stream="compute", name="1B0", start_seconds=0.125, end_seconds=0.5),
    )
    point = MemoryPoint(rank=1, at_seconds=0.25, held_bytes=7.0)
    timeline = Timeline(
        kind="predicted", title="", ranks=2, step_seconds=0.5, spans=spans, memory=(point,)
    )
    named = {"ph": "M", "pid": 1}
    assert trace_events(timeline, layout=Layout(tp=2)) == [
        named | {"name": "process_name", "tid": 0, "args": {"name": "rank 1 (pp0 dp0 cp0 tp1)"}},
        named | {"name": "process_sort_index", "tid": 0, "args": {"sort_index": 1}},
        named | {"name": "thread_name", "tid": 0, "args": {"name": "compute"}},
        named | {"name": "thread_sort_index", "tid": 0, "args": {"sort_index": 0}},
        named | {"name": "thread_name", "tid": 1, "args": {"name": "compute 2"}},
        named | {"name": "thread_sort_index", "tid": 1, "args": {"sort_index": 1}},
        {
            "ph": "X",
            "name": "1F0",
            "cat": "forward",
            "pid": 1,
            "tid": 0,
            "ts": 0.0,
            "dur": 250_000.0,
            "args": {"stage": 1, "microbatch": 0},
        },
        {
            "ph": "X",
            "name": "1B0",
            "cat": "backward",
            "pid": 1,
            "tid": 1,
            "ts": 125_000.0,
            "dur": 375_000.0,
            "args": {"stage": 1, "microbatch": 0},
        },
        {"ph": "C", "name": "held bytes", "pid": 1, "ts": 250_000.0, "args": {"bytes": 7.0}},
    ]


def test_the_file_is_one_object_with_both_timelines(tmp_path: Path) -> None:
    predicted = make_timeline(PIPELINE, 4)
    measured = make_timeline(PIPELINE, 4, "measured", pace=1.5)
    path = write_trace(predicted, tmp_path / "trace.json", beside=measured, layout=PIPELINE)
    value = json.loads(path.read_text())
    assert value["displayTimeUnit"] == "ms"
    assert value["otherData"]["step_seconds"] == [predicted.step_seconds, measured.step_seconds]
    names = [e for e in value["traceEvents"] if e["name"] == "process_name"]
    assert len({e["pid"] for e in names}) == len({e["args"]["name"] for e in names}) == 8
    by_pid = {e["pid"]: e["args"]["name"] for e in names}
    assert [by_pid[pid].rpartition(" ")[2] for pid in sorted(by_pid)][:2] == [
        "predicted",
        "measured",
    ]
    ids = [e["id"] for e in value["traceEvents"] if e["ph"] == "s"]
    assert len(ids) == len(set(ids)) > 0
    ends = [e["ts"] + e["dur"] for e in value["traceEvents"] if e["ph"] == "X"]
    assert max(ends) == round(measured.step_seconds * 1e9) / 1e3
