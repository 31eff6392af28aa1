"""Lengths: which sequences a model takes."""

from planner.spec.documents import InputError
from planner.spec.model import ModelSpec


def check_length(model: ModelSpec, seq_len: int) -> None:
    """Raise InputError unless every stack of a model has positions for so many tokens."""
    for stack in model.stacks:
        spec = stack.embedding
        if spec.convolutions and model.encoder is not None:
            continue  # the encoder's tokens are the source's
        if spec.convolutions and seq_len != spec.max_positions:
            raise InputError(
                f"--seq-len {seq_len}: {model.name} makes {spec.max_positions} vectors of "
                f"every input; write --seq-len {spec.max_positions}"
            )
        if seq_len > spec.max_positions and spec.positions != "none":
            raise InputError(
                f"--seq-len {seq_len} is more than the {spec.max_positions} positions "
                f"that the {stack.name} of {model.name} has; choose at most that"
            )
