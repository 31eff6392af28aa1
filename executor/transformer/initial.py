"""Initial values: a parameter's values depend on the seed and its name, on nothing else.

    matrices and biases ~ N(0, 0.02^2)      norm weights ~ 1 + N(0, 0.02^2)

So every plan starts from the same full weights whichever rank holds which slice, and no rank
ever holds the whole model. Biases and norm weights are random too: with constants some
gradients would be equal by symmetry and a wrong division could pass for a right one.
Values are drawn in fp32 on the CPU, so a GPU starts from the same weights, then rounded.
"""

import hashlib

import torch
from torch import Tensor

STANDARD_DEVIATION = 0.02


def full_value(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The whole tensor of a parameter, fp32 [shape] on the CPU."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    mean = 1.0 if name.endswith("norm.weight") else 0.0
    value = torch.randn(shape, generator=generator, dtype=torch.float32)
    return value.mul_(STANDARD_DEVIATION).add_(mean)


def alike_value(name: str, shape: tuple[int, ...]) -> Tensor:
    """One value for every element of a parameter, without memory: for runs that learn nothing."""
    return torch.tensor(STANDARD_DEVIATION).expand(shape)
