"""Traces as torch writes them: real operators with shapes and sequence numbers, made-up kernels.

There is no GPU here, so every innermost operator gets one kernel of a known time.
"""

import json

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.checkpoint import checkpoint

from profiler.imports import kineto
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source, read

MICROSECONDS = {"aten::addmm": 7.0, "aten::mm": 5.0, "aten::sum": 1.0}
"""Of the kernel that each operator launches."""


def traced(tmp_path, step, steps: int = 2) -> Source:
    """The trace of some steps, a kernel behind every operator of MICROSECONDS."""
    path = tmp_path / "trace.json"
    with profile(
        activities=[ProfilerActivity.CPU],
        record_shapes=True,
        schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda recorded: recorded.export_chrome_trace(str(path)),
    ) as recorded:
        for _ in range(1 + steps):
            step()
            recorded.step()
    document = json.loads(path.read_text())
    for event in list(document["traceEvents"]):
        if event.get("cat") == "cpu_op" and event["name"] in MICROSECONDS:
            launched = {"External id": event["args"]["External id"]}
            name, length = "gemm_" + event["name"], MICROSECONDS[event["name"]]
            document["traceEvents"].append(
                {"ph": "X", "cat": "kernel", "name": name, "ts": event["ts"], "dur": length}
                | {"args": launched}
            )
    path.write_text(json.dumps(document))
    return read(path)


def test_linear_layers_of_a_real_trace(tmp_path):
    first, second = nn.Linear(32, 48), nn.Linear(48, 16, bias=False)

    def step() -> None:
        second(first(torch.randn(2, 8, 32, requires_grad=True))).sum().backward()

    samples = kineto.read([traced(tmp_path, step)], Wanted()).document.operators
    found = {(s.dims["n"], s.phase): s for s in samples}
    assert set(found) == {(n, phase) for n in (48, 16) for phase in ("forward", "backward")}
    assert found[48, "forward"].dims == {"m": 16, "k": 32, "n": 48, "bias": 1}
    assert found[16, "forward"].dims == {"m": 16, "k": 48, "n": 16, "bias": 0}
    assert found[48, "forward"].seconds == pytest.approx(7e-6)
    assert found[16, "forward"].seconds == pytest.approx(5e-6)
    assert found[48, "backward"].seconds == pytest.approx(11e-6)  # two products and the bias
    assert found[16, "backward"].seconds == pytest.approx(10e-6)
    assert {(s.dtype, s.repeats) for s in samples} == {("fp32", 2)}


def test_steps_are_marked(tmp_path):
    layer = nn.Linear(4, 4)
    summary = kineto.read([traced(tmp_path, lambda: layer(torch.randn(2, 4)), 3)], Wanted())
    assert len(summary.document.trace.step_seconds) == 3


def test_recomputed_forwards_are_no_backwards(tmp_path):
    """The backward of the first layer behind a checkpoint runs all of its forwards again."""
    block = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    def step() -> None:
        x = torch.randn(4, 8, requires_grad=True)
        checkpoint(block, x, use_reentrant=False).sum().backward()

    made = kineto.read([traced(tmp_path, step)], Wanted())
    assert any("2 backwards left out" in note for note in made.notes)
    for sample in made.document.operators:
        assert sample.seconds == pytest.approx(7e-6 if sample.phase == "forward" else 11e-6)
