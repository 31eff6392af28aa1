"""Plans, timelines and measurements made by hand, so that reports are tested without a planner.

`play` gives the actions of a lowered schedule durations; receives wait for their sends.
"""

from collections.abc import Mapping

import pytest

from planner.schedule import lowering
from planner.schedule.action import Action, Kind
from planner.schedule.check import send_of
from planner.spec.layout import Layout, make_stages
from planner.spec.measured import Measured, StepTimes
from planner.spec.plan import Plan, Prediction
from planner.spec.profile import Machine
from planner.spec.provenance import Shares
from planner.spec.timeline import MemoryPoint, Span, Stream, Timeline
from planner.spec.workload import Workload
from reports.results import PlanResult
from tests.examples import cpu_cluster, gpt2_like, plain_runtime

SECONDS = {
    Kind.FORWARD: 0.010,
    Kind.BACKWARD: 0.021,
    Kind.SEND_FORWARD: 0.0,
    Kind.SEND_BACKWARD: 0.0,
    Kind.RECEIVE_FORWARD: 0.001,
    Kind.RECEIVE_BACKWARD: 0.001,
    Kind.REDUCE_GRADIENT: 0.004,
    Kind.OPTIMIZER: 0.003,
}
STREAMS: dict[Kind, Stream] = {
    Kind.FORWARD: "compute",
    Kind.BACKWARD: "compute",
    Kind.REDUCE_GRADIENT: "dp",
    Kind.OPTIMIZER: "optimizer",
}
MIB = 2.0**20

Times = dict[Action, tuple[float, float]]


def play(stages: int, microbatches: int, pace: float = 1.0, waits: bool = False) -> list[Times]:
    """Start and end of every action by stage; waits: receives begin when they are reached."""
    grid = lowering.lower("1f1b", stages, microbatches)
    times: list[Times] = [{} for _ in grid]
    clock, place = [0.0] * stages, [0] * stages
    while any(at < len(order) for at, order in zip(place, grid, strict=True)):
        for stage, order in enumerate(grid):
            while place[stage] < len(order):
                action = order[place[stage]]
                start = clock[stage]
                send = send_of(action)
                if send is not None:
                    sent = times[send.stage].get(send)
                    if sent is None:
                        break
                    start = max(start, sent[0])
                end = start + SECONDS[action.kind] * pace
                times[stage][action] = (clock[stage] if waits else start, end)
                clock[stage], place[stage] = end, place[stage] + 1
    return times


def make_timeline(
    layout: Layout, microbatches: int, kind: str = "predicted", pace: float = 1.0
) -> Timeline:
    """A timeline of every rank of a layout; peers of a stage do the same."""
    times = play(layout.pp, microbatches, pace, waits=kind == "measured")
    spans, memory = [], []
    for rank in range(layout.devices):
        stage = layout.coordinates(rank)["pp"]
        held = 60.0 * MIB
        memory.append(MemoryPoint(rank=rank, at_seconds=0.0, held_bytes=held))
        for action, (start, end) in times[stage].items():
            spans.append(
                Span(
                    rank=rank,
                    stream=STREAMS.get(action.kind, "pp"),
                    name=str(action),
                    start_seconds=start,
                    end_seconds=end,
                )
            )
            if action.kind in (Kind.FORWARD, Kind.BACKWARD):
                held += 12.0 * MIB if action.kind == Kind.FORWARD else -12.0 * MIB
                memory.append(MemoryPoint(rank=rank, at_seconds=end, held_bytes=held))
    return Timeline(
        kind=kind,
        title=str(layout),
        ranks=layout.devices,
        step_seconds=max(span.end_seconds for span in spans),
        spans=tuple(spans),
        memory=tuple(memory),
        peak_bytes=dict.fromkeys(
            range(layout.devices), (110.0 if kind == "measured" else 120) * MIB
        ),
        capacity_bytes=4096.0 * MIB,
    )


def make_plan(layout: Layout, step_seconds: float = 0.2, why: tuple[str, ...] = ()) -> Plan:
    """A plan of a small GPT-2 on shared cores with a plausible promise."""
    model, places = gpt2_like(), layout.pp * layout.vpp
    memory = {"weights": 20.0, "gradients": 20.0, "optimizer": 40.0, "activations": 40.0}
    predicted = Prediction(
        step_seconds=step_seconds,
        tokens_per_second_per_device=1234.5,
        mfu=0.31,
        peak_bytes=120.0 * MIB,
        capacity_bytes=4096.0 * MIB,
        fits=True,
        stage_peak_bytes=(120.0 * MIB,) * layout.pp,
        breakdown={"forward": 0.4 * step_seconds, "backward": 0.6 * step_seconds},
        memory={name: size * MIB for name, size in memory.items()},
        provenance=Shares(measured=0.6, fitted=0.3, assumed=0.1),
    )
    return Plan(
        model=model,
        cluster=cpu_cluster(layout.devices),
        workload=Workload(seq_len=64, global_batch=16, dtype="fp32"),
        runtime=plain_runtime(),
        layout=layout,
        stages=make_stages(layout, (model.layers // places,) * places),
        predicted=predicted,
        why=why,
        version="0.1.0",
    )


def make_machine(**changes: object) -> Machine:
    values: Mapping[str, object] = {
        "kind": "cpu",
        "processor": "Example CPU 3.0 GHz",
        "cores": 8,
        "memory_bytes": 32.0 * 2**30,
        "operating_system": "Linux",
        "python": "3.12.1",
        "torch": "2.13.0",
    }
    return Machine.model_validate({**values, **changes})


def make_measured(
    plan: Plan, pace: float = 1.1, peak_mib: float = 110.0, loss: tuple[float, ...] = (4.5, 4.25)
) -> Measured:
    """A run of a plan that took `pace` times as long as predicted."""
    timeline = make_timeline(plan.layout, plan.microbatches, "measured", pace)
    step = timeline.step_seconds
    return Measured(
        layout=plan.layout,
        layer_counts=plan.layer_counts,
        step_seconds=StepTimes(median=step, min=0.97 * step, max=1.05 * step, steps=(step,) * 3),
        peak_bytes=dict.fromkeys(range(plan.layout.devices), peak_mib * MIB),
        resident_bytes=dict.fromkeys(range(plan.layout.devices), 4 * peak_mib * MIB),
        loss=loss,
        gradient_norm=(1.0,) * len(loss),
        world_size=plan.layout.devices,
        backend="gloo",
        warmup_steps=1,
        machine=make_machine(),
        timeline=timeline,
    )


def make_result(
    layout: Layout, pace: float | None = 1.1, why: tuple[str, ...] = (), **run: float
) -> PlanResult:
    """A plan with its timeline and, unless pace is None, its run."""
    predicted = make_timeline(layout, layout.microbatches(16))
    plan = make_plan(layout, predicted.step_seconds, why)
    measured = None if pace is None else make_measured(plan, pace, **run)
    return PlanResult(plan, predicted, measured, None if pace is None else 3e-7)


PIPELINE = Layout(dp=1, tp=1, pp=4, micro_batch=2)


@pytest.fixture(scope="session")
def results() -> list[PlanResult]:
    """Three plans that ran: a pipeline, a mixture, and data parallelism alone."""
    return [
        make_result(PIPELINE, 1.08, why=("The step takes 0.3 s: forward 30%, backward 60%.",)),
        make_result(Layout(dp=2, pp=2, micro_batch=2, zero=1), 0.95),
        make_result(Layout(dp=4, micro_batch=1), 1.21, peak_mib=130.0),
    ]
