"""Alike: whether every rank has built a user's module with the same values.

Ranks keep parts of what each of them has built itself, after the same seed of torch. A module that
draws from elsewhere (numpy, the clock) is another one on every rank, and dp would train as many as
there are replicas without a word. So ranks compare one number per parameter, the sum of its bits as
integers: exact, whatever the order of addition.
"""

import torch
from torch import Tensor, nn

from executor.parallel.collectives import Group, all_reduce_max
from planner.spec.documents import InputError

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of an element."""


def check_alike(module: nn.Module, group: Group, device: torch.device) -> None:
    """Raise InputError on every rank where two differ. Collective."""
    names = [name for name, _ in module.named_parameters()]
    own = torch.stack([_sum(parameter) for parameter in module.parameters()]).to(device)
    both = torch.stack((own, -own))
    all_reduce_max(both, group)
    differs = (both[0] != -both[1]).tolist()
    if any(differs):
        raise InputError(
            f"--module: {names[differs.index(True)]} has other values on some rank than on others; "
            f"draw them with torch alone, which is seeded alike, or read them from a file"
        )


def _sum(parameter: nn.Parameter) -> Tensor:
    bits = parameter.detach().contiguous().view(INTEGERS[parameter.element_size()])
    return bits.sum(dtype=torch.int64).cpu()
