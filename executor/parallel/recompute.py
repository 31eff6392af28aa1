"""Recompute: what a layer lets go after its forward and computes again in its backward.

    none        nothing
    selective   the attention core: scores, softmax, weighting (Korthikanti et al. 2022); its
                inputs q, k, v (rotated) and its output, the next matrix's input, are kept
    full        everything but the layer's input

torch's non-reentrant checkpoint stops the second run as soon as the last tensor that the
backward needs is back. No random numbers are drawn in a layer, so no state is kept for them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.checkpoint import checkpoint

from executor.transformer.model import Transformer
from planner.spec.layout import LayerChoice


def recompute(model: Transformer, choices: Sequence[LayerChoice]) -> None:
    """Checkpoint the layers of a stage, or their attention cores, as their choices say."""
    for layer, choice in zip(model.layers.values(), choices, strict=True):
        if choice.recompute == "full":
            layer.forward = _run_again(layer.forward)
        elif choice.recompute == "selective":
            for attention in layer.attentions:
                attention.core = _run_again(attention.core)


def _run_again(forward: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
