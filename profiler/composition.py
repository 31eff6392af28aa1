"""Composition: what a whole layer takes, over the sum of its operators.

    composition[phase] = median over passes of
                         T_stack[phase] / (layers * sum over a layer's operators of t[phase])

A pass times the stack, then each operator, so that a machine that grows slower meanwhile slows
both. The factor holds what timing operators apart misses: the overhead of autograd and Python
between them, and caches that are colder or warmer than those of rotating buffers.
On a CPU both are CPU time, as no two processes share a core.
"""

import math
import statistics
from collections.abc import Callable, Sequence

from planner.graph import counts
from planner.spec.profile import OperatorSample, Phase
from planner.spec.workload import DTYPE_BYTES
from profiler import operators
from profiler.kinds import distinct
from profiler.layers import Reference
from profiler.operators import PHASES, measure_operators
from profiler.stopwatch import Lap, compute_timing
from profiler.team import Team

MOST_LAYERS = 4
COLD_BYTES = 64 << 20
"""Weights of a stack that no cache near a core holds."""
PASSES = 3
SECONDS = 0.5

Samples = dict[object, OperatorSample]


def measure_composition(
    reference: Reference, team: Team, busy: int, enough: Callable[[], bool] = lambda: False
) -> tuple[dict[Phase, float], list[OperatorSample]]:
    """Composition by phase, and the samples of the layer's operators.

    busy: processes at once. enough: asked after each pass whether to leave out the others.
    """
    passes: list[tuple[dict[Phase, float], Samples]] = []
    while len(passes) < PASSES and not (passes and enough()):
        layer = measure_stack(reference, team, busy, SECONDS)
        requests = distinct(reference.operators())
        batches = measure_operators(requests, team, busy, operators.SECONDS)
        known: Samples = {sample.key: sample for batch in batches for sample in batch}
        passes.append((compose(reference, layer, known), known))
    factors = {phase: statistics.median(found[phase] for found, _ in passes) for phase in PHASES}
    return factors, [_middle([known[key] for _, known in passes]) for key in passes[0][1]]


def measure_stack(
    reference: Reference, team: Team, busy: int, seconds: float = SECONDS
) -> dict[Phase, float]:
    """Seconds of one layer of a stack, in `busy` processes at once."""
    layers = stack_layers(reference)
    results = team.run(
        "layers",
        busy,
        reference=reference.model_dump(mode="json"),
        layers=layers,
        seconds=seconds,
    )
    found: dict[Phase, float] = {}
    for phase in PHASES:
        laps = [Lap(*lap) for result in results for lap in result[phase]]
        found[phase] = compute_timing(laps, team.device).seconds / layers
    return found


def stack_layers(reference: Reference) -> int:
    """How many layers the stack has: enough for cold weights, from two to four."""
    size = counts.layer_parameters(reference.model) * DTYPE_BYTES[reference.dtype]
    return max(2, min(MOST_LAYERS, reference.model.layers, math.ceil(COLD_BYTES / size)))


def compose(
    reference: Reference, layer: dict[Phase, float], samples: Samples
) -> dict[Phase, float]:
    """Composition by phase from the seconds of one layer and samples of all its operators."""
    return {
        phase: layer[phase]
        / sum(samples[(*request.key, phase)].seconds for request in reference.operators())
        for phase in PHASES
    }


def _middle(samples: Sequence[OperatorSample]) -> OperatorSample:
    """The sample with the median time (the lower of two)."""
    return sorted(samples, key=lambda sample: sample.seconds)[(len(samples) - 1) // 2]
