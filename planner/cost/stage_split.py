"""Stage split: how many layers a runtime puts on each stage when nobody tells it.

even   as even as can be, the middle first                        (planner.spec.layout)
cost   a stage takes layers until its share of the summed cost is reached, the layer that
       crosses the border included: cost of a layer = its parameters (nanotron's rule counts its
       matrices), of the head = vocabulary * hidden; the last stage takes the rest. On which side
       of the border the crossing layer stays shows in the peak memory of the Ultra-Scale sweep.

Where the head predicts further tokens, an even split counts each of its layers as one of the last
stage's, and the projections to the vocabulary with the losses as one more. Megatron-Bridge's
layouts of DeepSeek-V3 do (scripts/performance/configs/deepseek: Et*4|(t*4|)*14tmL, E the table, t a
layer, m one for a further token, L the loss): 1 of 61 layers in the last of 16 stages.
"""

import itertools

from planner.graph.counts import layer_parameters
from planner.spec.layout import even_counts
from planner.spec.model import ModelSpec
from planner.spec.runtime import Runtime


def usual_counts(model: ModelSpec, runtime: Runtime, pp: int) -> tuple[int, ...]:
    """Layers per stage as the runtime splits them by itself."""
    if runtime.stage_split == "even" or pp == 1:
        return _even(model.layers, model.head.mtp_layers, pp)
    layers = [layer_parameters(model, *kind) for kind in model.order]
    total = sum(layers) + model.hidden * model.head.classes
    counts, stage = [0] * pp, 0
    for cost in itertools.accumulate(layers):
        counts[stage] += 1
        while stage < pp - 1 and cost * pp >= total * (stage + 1):
            stage += 1
    return tuple(counts)


def _even(layers: int, further: int, pp: int) -> tuple[int, ...]:
    if not further or pp == 1:
        return even_counts(layers, pp)
    beside = further + 1
    last = max(0, even_counts(layers + beside, pp)[-1] - beside)
    return (*even_counts(layers - last, pp - 1), last)
