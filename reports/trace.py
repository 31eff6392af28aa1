"""Trace: a timeline as Chrome trace JSON, which https://ui.perfetto.dev opens.

    process (pid)    a rank, with its place in the layout where that is known
    thread (tid)     a stream; sends and receives of the pipeline have one each
    X slices         the spans; ts and dur in microseconds, whole nanoseconds
    C counters       bytes held by the rank
    s -> f arrows    from each send to the receive of the same tensor

Slices on one thread must nest, or Perfetto moves them to an overflow track. So a span that would
overlap another in part goes to a further thread of its stream ("compute 2"). Rounding to whole
nanoseconds keeps spans that touch in seconds touching in the file.

Format: "Trace Event Format" (Chromium), and what Perfetto's importer does with it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.schedule.action import RECEIVES
from planner.schedule.check import send_of
from planner.spec.documents import write_text
from planner.spec.layout import Layout
from planner.spec.timeline import MemoryPoint, Span, Timeline
from reports.kinds import action_of, kind_of
from reports.occupancy import stage_by_rank

Event = dict[str, Any]

THREADS = ("compute", "tp", "pp send", "pp receive", "pp", "dp", "optimizer")
LANES = 1000
"""Room for further threads of one stream in the thread numbers."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A span on its thread, in whole nanoseconds."""

    span: Span
    tid: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class _Track:
    """Where the events of one timeline go: pid = rank * step + place, so that pairs adjoin."""

    timeline: Timeline
    layout: Layout | None
    place: int = 0
    step: int = 1

    def pid(self, rank: int) -> int:
        return rank * self.step + self.place


def write_trace(
    timeline: Timeline,
    path: Path | str,
    beside: Timeline | None = None,
    layout: Layout | None = None,
) -> Path:
    """Write a timeline, and one `beside` it rank by rank, as a trace.

    layout names the ranks' coordinates. Raises InputError if the file cannot be written.
    """
    timelines = (timeline,) if beside is None else (timeline, beside)
    value = {
        "traceEvents": trace_events(timeline, beside, layout),
        "displayTimeUnit": "ms",
        "otherData": {
            "producer": "meshwright",
            "timelines": [f"{each.kind}: {each.title}" for each in timelines],
            "step_seconds": [each.step_seconds for each in timelines],
        },
    }
    return write_text(path, json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


def trace_events(
    timeline: Timeline, beside: Timeline | None = None, layout: Layout | None = None
) -> list[Event]:
    """The events of one timeline, or of two with their ranks side by side, ordered by time."""
    timelines = [timeline] if beside is None else [timeline, beside]
    tracks = [_Track(each, layout, i, len(timelines)) for i, each in enumerate(timelines)]
    slices = [_slices(track.timeline.spans) for track in tracks]
    names: list[Event] = []
    timed: list[Event] = []
    for track, laid in zip(tracks, slices, strict=True):
        names += _names(track, laid)
        timed += [_slice_event(track.pid(each.span.rank), each) for each in laid]
        timed += [_counter_event(track.pid(p.rank), p) for p in track.timeline.memory]
        timed += _flows(track, laid, first_id=len(timed))
    return names + sorted(timed, key=lambda event: (event["ts"], event["ph"] == "f"))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _thread(span: Span) -> str:
    if span.stream == "pp" and (kind := kind_of(span)) in ("send", "receive"):
        return f"pp {kind}"
    return span.stream


def _slices(spans: Iterable[Span]) -> list[Slice]:
    """Spans on threads, so that on one thread of one rank they nest or stand apart."""
    by_thread: dict[tuple[int, str], list[Span]] = defaultdict(list)
    for span in spans:
        by_thread[span.rank, _thread(span)].append(span)
    return [
        Slice(span, THREADS.index(thread) * LANES + lane, start, end)
        for (_, thread), group in by_thread.items()
        for span, lane, start, end in _lanes(group)
    ]


def _lanes(spans: list[Span]) -> Iterator[tuple[Span, int, int, int]]:
    """The first lane in which a span lies apart from, or inside, what is still open there."""
    open_ends: list[list[int]] = []
    timed = ((_nanoseconds(s.start_seconds), -_nanoseconds(s.end_seconds), s) for s in spans)
    for start, minus_end, span in sorted(timed, key=lambda item: item[:2]):
        lane = next((i for i, ends in enumerate(open_ends) if _fits(ends, start, -minus_end)), None)
        if lane is None:
            lane = len(open_ends)
            open_ends.append([])
        open_ends[lane].append(-minus_end)
        yield span, lane, start, -minus_end


def _fits(ends: list[int], start: int, end: int) -> bool:
    while ends and ends[-1] <= start:
        ends.pop()
    return not ends or end <= ends[-1]


def _slice_event(pid: int, each: Slice) -> Event:
    return {
        "ph": "X",
        "name": each.span.name,
        "cat": kind_of(each.span),
        "pid": pid,
        "tid": each.tid,
        "ts": each.start_ns / 1e3,
        "dur": (each.end_ns - each.start_ns) / 1e3,
        "args": _arguments(each.span),
    }


def _arguments(span: Span) -> dict[str, int]:
    action = action_of(span)
    if action is None:
        return {}
    if action.microbatch is None:
        return {"stage": action.stage}
    return {"stage": action.stage, "microbatch": action.microbatch}


def _counter_event(pid: int, point: MemoryPoint) -> Event:
    return {
        "ph": "C",
        "name": "held bytes",
        "pid": pid,
        "ts": _nanoseconds(point.at_seconds) / 1e3,
        "args": {"bytes": point.held_bytes},
    }


def _names(track: _Track, slices: list[Slice]) -> list[Event]:
    stages = stage_by_rank(track.timeline)
    ranks = {each.span.rank for each in slices} | {p.rank for p in track.timeline.memory}
    events: list[Event] = []
    for rank in sorted(ranks):
        pid, name = track.pid(rank), _rank_name(track, rank, stages)
        events.append(_metadata("process_name", pid, {"name": name}))
        events.append(_metadata("process_sort_index", pid, {"sort_index": pid}))
    for rank, tid in sorted({(each.span.rank, each.tid) for each in slices}):
        thread, lane = THREADS[tid // LANES], tid % LANES
        name = thread if lane == 0 else f"{thread} {lane + 1}"
        pid = track.pid(rank)
        events.append(_metadata("thread_name", pid, {"name": name}, tid))
        events.append(_metadata("thread_sort_index", pid, {"sort_index": tid}, tid))
    return events


def _rank_name(track: _Track, rank: int, stages: dict[int, int]) -> str:
    place = f" (stage {stages[rank]})" if rank in stages else ""
    if track.layout is not None:
        axes = reversed(track.layout.coordinates(rank).items())
        place = " (" + " ".join(f"{axis}{at}" for axis, at in axes) + ")"
    return f"rank {rank}{place}" + (f" {track.timeline.kind}" if track.step > 1 else "")


def _metadata(name: str, pid: int, args: dict[str, Any], tid: int = 0) -> Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}


def _flows(track: _Track, slices: list[Slice], first_id: int) -> Iterator[Event]:
    """An arrow from every send to its receive.

    Ranks that send the same tensor's shards and ranks that receive them are paired in order:
    they differ only on the pipeline axis.
    """
    by_name: dict[str, list[Slice]] = defaultdict(list)
    for each in sorted(slices, key=lambda s: (s.span.rank, s.start_ns)):
        by_name[each.span.name].append(each)
    arrow = first_id
    for name in sorted(by_name):
        for send, receive in zip(_sends(by_name, name), by_name[name], strict=False):
            yield _flow_event("s", arrow, track.pid(send.span.rank), send, send.start_ns)
            at = _arrival(send, receive)
            yield _flow_event("f", arrow, track.pid(receive.span.rank), receive, at)
            arrow += 1


def _sends(by_name: dict[str, list[Slice]], name: str) -> list[Slice]:
    action = action_of(by_name[name][0].span)
    if action is None or action.kind not in RECEIVES:
        return []
    return by_name.get(str(send_of(action)), [])


def _arrival(send: Slice, receive: Slice) -> int:
    """A moment inside the receive, after the send began unless the receive ended before it."""
    start = min(max(receive.start_ns, send.start_ns), receive.end_ns)
    return (start + receive.end_ns) // 2


def _flow_event(phase: str, arrow: int, pid: int, end: Slice, at_ns: int) -> Event:
    event: Event = {
        "ph": phase,
        "name": "transfer",
        "cat": "pp",
        "id": arrow,
        "pid": pid,
        "tid": end.tid,
        "ts": at_ns / 1e3,
    }
    return event | {"bp": "e"} if phase == "f" else event
