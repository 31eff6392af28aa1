"""Data: random tokens that depend on the seed and the step, on nothing else.

Every plan sees the same global batch of each step; dp rank d computes the sequences
d*B/dp .. (d+1)*B/dp, microbatch k the k-th micro_batch of those; cp rank c has its cut of each
sequence (executor.sequence_cut).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from executor.sequence_cut import cut_of
from planner.spec.plan import Plan

Microbatches = list[tuple[Tensor, Tensor]]
"""Tokens and targets, [micro_batch, tokens of the cut] each."""


def global_batch(plan: Plan, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Tokens and the tokens that follow them, [global_batch, seq_len] each, on the CPU."""
    work = plan.workload
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    size = (work.global_batch, work.seq_len + 1)
    tokens = torch.randint(0, plan.model.vocab, size, generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def microbatches(
    plan: Plan, place: Mapping[str, int], seed: int, step: int, device: torch.device
) -> Microbatches:
    """The microbatches of a rank on the device. place: its index on every axis."""
    return divide(plan, place, global_batch(plan, seed, step), device)


def divide(
    plan: Plan, place: Mapping[str, int], batch: tuple[Tensor, Tensor], device: torch.device
) -> Microbatches:
    """The microbatches of a rank of a global batch, on the device."""
    each = plan.layout.micro_batch
    first = place["dp"] * plan.microbatches * each
    cut = cut_of(plan.layout, plan.workload.seq_len, place["cp"])
    tokens, targets = (cut.of(whole) for whole in batch)
    starts = range(first, first + plan.microbatches * each, each)
    return [
        (
            tokens[i : i + each].contiguous().to(device),
            targets[i : i + each].contiguous().to(device),
        )
        for i in starts
    ]
