"""Data: random tokens that depend on the seed and the step, on nothing else.

Every plan sees the same global batch of each step; dp rank d computes the sequences
d*B/dp .. (d+1)*B/dp, microbatch k the k-th micro_batch of those; cp rank c has its cut of each
sequence (executor.sequence_cut).

    decoder                the tokens that follow
    encoder                the tokens themselves; of those it sees, a share of MASKED is token 0
    encoder and decoder    tokens of another sequence, each from the source and those before it
    classes                one of each token, or of each sequence
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from executor.sequence_cut import cut_of
from planner.spec.plan import Plan

Microbatches = list[tuple[Tensor, Tensor]]
"""Tokens and targets of micro_batch sequences each, as global_batch has them."""


MASKED = 0.15
"""Share of the tokens that a masked language model does not see (Devlin et al. 2019)."""


def global_batch(plan: Plan, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets of all sequences, on the CPU.

    Tokens are [global_batch, seq_len], for an encoder and a decoder [global_batch, 2, seq_len];
    targets [global_batch, seq_len], or [global_batch] for classes of sequences.
    """
    work, model = plan.workload, plan.model
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)

    def draw(below: int, *size: int) -> Tensor:
        return torch.randint(0, below, (work.global_batch, *size), generator=generator)

    tokens = draw(model.vocab, work.seq_len + 1)
    seen, following = tokens[:, :-1], tokens[:, 1:]
    if model.encoder is not None:
        assert model.encoder.embedding.vocab is not None
        source = draw(model.encoder.embedding.vocab, work.seq_len)
        return torch.stack((source, seen), dim=1), following
    if model.head.kind == "sequence_classification":
        return seen, draw(model.head.classes)
    if model.head.kind == "token_classification":
        return seen, draw(model.head.classes, work.seq_len)
    if model.main.name == "encoder":
        masked = torch.rand(seen.shape, generator=generator) < MASKED
        return seen.masked_fill(masked, 0), seen
    return seen, following


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
