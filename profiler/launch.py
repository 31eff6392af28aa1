"""Launch: what it costs to start a kernel, and the host's share of a layer.

    kernel    device seconds of a chain of CHAIN tiny kernels / CHAIN
    host      host seconds until the chain is launched / CHAIN; on a CPU the same thing
    layer     host seconds until forward and backward of a tiny layer are launched

The chain's kernels depend on each other, as those of a layer do; where the host is slower than the
device, kernel is the host's time, and so it is in eager training. The layer is a plain one of
width HIDDEN and a few tokens: as many kernels as a large one, and nothing for the device to do.
On a CPU the same calls compute what little there is.
"""

import statistics
import time

import torch

from planner.spec.profile import LaunchCost
from profiler import grid, stopwatch
from profiler.layers import Reference, Stack
from profiler.team import Team

CHAIN = 200
HIDDEN, SEQ_LEN, LAYERS = 64, 8, 2
WARM_ROUNDS, LEAST_ROUNDS = 3, 5
SECONDS = 0.3


def tiny_reference(dtype: str) -> Reference:
    """The layer whose host time is measured."""
    model = grid.plain_model(HIDDEN, LAYERS)
    return Reference.model_validate(
        {"model": model, "seq_len": SEQ_LEN, "micro_batch": 1, "dtype": dtype}
    )


def measure_launch(team: Team, dtype: str, seconds: float = SECONDS) -> LaunchCost:
    """Launch costs on one rank, with nothing beside it. Raises RunError when it fails."""
    reference = tiny_reference(dtype)
    (found,) = team.run(
        "launch",
        1,
        reference=reference.model_dump(mode="json"),
        layers=LAYERS,
        seconds=seconds,
    )
    return LaunchCost(
        kernel_seconds=statistics.median(found["kernel"]),
        host_seconds=statistics.median(found["host"]),
        layer_host_seconds=statistics.median(found["layer"]),
        layer_of=str(reference),
        spread=stopwatch.spread(found["layer"]),
        repeats=len(found["layer"]),
    )


def measure(stack: Stack, layers: int, device: str, seconds: float) -> dict[str, list[float]]:
    """Seconds of each round: kernel, host, layer (see the top of the file)."""
    tiny = torch.zeros(1, device=device)
    for _ in range(WARM_ROUNDS):
        _chain(tiny, device)
        _layer(stack, device)
    found: dict[str, list[float]] = {"kernel": [], "host": [], "layer": []}
    end = time.perf_counter() + seconds
    while len(found["layer"]) < LEAST_ROUNDS or time.perf_counter() < end:
        kernel, host = _chain(tiny, device)
        found["kernel"].append(kernel / CHAIN)
        found["host"].append(host / CHAIN)
        found["layer"].append(_layer(stack, device) / layers)
    return found


def _chain(tiny: torch.Tensor, device: str) -> tuple[float, float]:
    clock = stopwatch.clock(device)
    stopwatch.synchronize(device)
    clock.start()
    begin = time.perf_counter()
    for _ in range(CHAIN):
        tiny.add_(1.0)
    host = time.perf_counter() - begin
    clock.stop()
    return clock.laps()[0].seconds, host


def _layer(stack: Stack, device: str) -> float:
    """Host seconds of forward and backward of the whole stack."""
    stack.x.grad = None
    stopwatch.synchronize(device)
    begin = time.perf_counter()
    stack.backward(stack.forward())
    return time.perf_counter() - begin
