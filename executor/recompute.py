"""Recompute: layers whose choice is `full` keep only their input and run again in the backward.

torch's non-reentrant checkpoint stops the second run as soon as the last tensor that the
backward needs is back. No random numbers are drawn in a layer, so no state is kept for them.
"""

import functools
from collections.abc import Sequence

from torch.utils.checkpoint import checkpoint

from executor.model import Transformer
from planner.spec.layout import LayerChoice


def recompute(model: Transformer, choices: Sequence[LayerChoice]) -> None:
    """Checkpoint the layers of a stage as their choices say."""
    for layer, choice in zip(model.layers.values(), choices, strict=True):
        if choice.recompute == "full":
            layer.forward = functools.partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
