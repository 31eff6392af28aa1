"""Whole parameters from the parts that ranks hold: for checks, and for saving a model."""

from collections.abc import Iterable

import torch
from torch import Tensor

from executor.states.data_parallel import Updater
from executor.states.flat import Slot

Part = tuple[Slot, Tensor]


def parts(updater: Updater) -> list[Part]:
    """Copies of this rank's parts of the parameters, on the CPU. Collective."""
    return [
        (slot, value.detach().cpu().clone())
        for unit in updater.units
        for slot, value in unit.values()
    ]


def whole(found: Iterable[Part]) -> dict[str, Tensor]:
    """Join the parts of all ranks to whole parameters by name.

    Raises ValueError if a parameter has gaps, or if ranks disagree about a shared part (by more
    than rounding: copies of a tied matrix are summed in different orders).
    """
    joined: dict[str, Tensor] = {}
    for slot, value in found:
        if slot.name not in joined:
            joined[slot.name] = torch.full(slot.full_shape, torch.nan, dtype=value.dtype)
        place = slot.cut(joined[slot.name])
        value = value.view(place.shape)
        if place.isnan().any():
            place.copy_(value)
        elif not torch.allclose(place, value, rtol=1e-9, atol=1e-12):
            raise ValueError(f"ranks hold different values of {slot.name}")
    if gaps := [name for name, value in joined.items() if value.isnan().any()]:
        raise ValueError(f"no rank holds all of {', '.join(gaps)}")
    return joined
