"""The programs are right, and a fake run says what a real one says.

On eight gloo ranks a program gives the outputs and input gradients that one process gives
without any group; and what is recorded there is what a fake rank records.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor.alone.sent import Sent, fake_group
from planner.spec.layer import Experts
from planner.spec.model import ModelSpec
from tests.examples import gpt2_like, llama_like
from tests.executor import pool as pools
from tests.ledger import grid
from tests.ledger.programs.axes import Axes, index, part, size
from tests.ledger.programs.ends import Embedding, Head
from tests.ledger.programs.experts import DividedExperts
from tests.ledger.programs.layer import Layer
from tests.ledger.recorder import record

BATCH, SEQ = 2, 16
LLAMA, GPT2 = llama_like(heads=16, kv_heads=8), gpt2_like(vocab=97)
EXPERTS = Experts.model_validate(
    {
        "experts": 4,
        "per_token": 2,
        "expert": {"ffn": 24, "gated": True, "activation": "silu"},
    }
)
LATENT = LLAMA.main.kinds[0].attention.replace(
    qk_norm=False,
    kv_heads=16,
    head_dim=6,
    value_dim=4,
    rotary_dim=2,
    latent={"query_rank": 12, "kv_rank": 8},
)


def with_attention(model: ModelSpec, attention: Any) -> ModelSpec:
    kind = model.layer.replace(attention=attention)
    return model.replace(stacks=(model.main.replace(kinds=(kind,)),))


MODELS = {"llama": LLAMA, "gpt2": GPT2, "latent": with_attention(LLAMA, LATENT)}
LAYERS = [
    ("llama", {"tp": 2}, {}),
    ("gpt2", {"tp": 4}, {"sequence_parallel": False}),
    ("gpt2", {"tp": 4}, {}),
    ("llama", {"cp": 4}, {"cp_style": "ring"}),
    ("llama", {"cp": 4}, {"cp_style": "all_to_all"}),
    ("llama", {"cp": 4}, {"cp_style": "all_gather"}),
    ("llama", {"tp": 2, "cp": 2}, {"cp_style": "ring"}),
    ("latent", {"tp": 2}, {"sequence_parallel": False}),
    ("latent", {"tp": 2, "cp": 2}, {"cp_style": "ring"}),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[pools.Pool]:
    with pools.started() as pool:
        yield pool


@contextmanager
def doubles() -> Iterator[None]:
    """fp64, in which a right program is right to 1e-12 and a wrong one is not."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def own_rows(whole: Tensor, axes: Axes) -> Tensor:
    """[b, s, ...] of all -> the rows of this rank between blocks."""
    rows = part(whole, 1, axes.cp).flatten(0, 1)
    return part(rows, 0, axes.tp) if axes.sequence_parallel else rows


def run_layer(rank: int, name: str, degrees: Any, choices: Any) -> tuple[list[Sent], float]:
    """What a rank sends, and how far its outputs and gradients are from those of one process."""
    model = MODELS[name]
    with doubles(), grid.joined(degrees, **choices) as axes:
        seed = rank // grid.ranks(degrees)
        values = [drawn(BATCH, SEQ, model.hidden, seed=2 * seed + i) for i in range(2)]
        x, factor = (own_rows(value, axes).clone() for value in values)
        expected = gradient_of(
            Layer(model, model.layer, Axes()), *(v.flatten(0, 1) for v in values)
        )
        x.requires_grad_()
        layer, results = Layer(model, model.layer, axes), []

        def forward() -> Tensor:
            results.append(layer(x, BATCH))
            return results[0] * factor

        sent = record(axes.named, forward)
        results.append(x.grad)
        wanted = (own_rows(v.view(BATCH, SEQ, -1), axes) for v in expected)
        return sent, distance(results, wanted)


def gradient_of(layer: nn.Module, x: Tensor, factor: Tensor) -> list[Tensor]:
    """Output and input gradient of sum(layer(x) * factor) in one process."""
    x = x.clone().requires_grad_()
    y = layer(x, BATCH) if isinstance(layer, Layer) else layer(x)
    (y * factor).sum().backward()
    return [y, x.grad]


def distance(results: Any, wanted: Any) -> float:
    return max((a - b).abs().max().item() for a, b in zip(results, wanted, strict=True))


def run_experts(rank: int, degrees: Any) -> tuple[list[Sent], float]:
    with doubles(), grid.joined(degrees) as axes:
        x, factor = drawn(2, 8, 12, seed=rank)
        expected = gradient_of(DividedExperts(EXPERTS, 12, Axes(), "experts"), x, factor)
        x.requires_grad_()
        experts, results = DividedExperts(EXPERTS, 12, axes, "experts"), []

        def forward() -> Tensor:
            results.append(experts(x))
            return results[0] * factor

        sent = record(axes.named, forward)
        return sent, distance([*results, x.grad], expected)


def run_ends(rank: int, degrees: Any, choices: Any) -> tuple[list[Sent], float]:
    with doubles(), grid.joined(degrees, **choices) as axes:
        tokens, targets = torch.arange(32) * 5 % GPT2.vocab, torch.arange(32) * 7 % GPT2.vocab
        embedding, head, results = Embedding(GPT2, axes), Head(GPT2, axes), []

        def forward() -> Tensor:
            results.append(head(embedding(tokens), targets))
            return results[0]

        sent = record(axes.named, forward)
        whole = Embedding(GPT2, Axes()), Head(GPT2, Axes())
        loss = whole[1](whole[0](tokens), targets)
        loss.backward()
        tables = (whole[0].table.grad, whole[1].matrix.grad)
        mine = [t.split(-(-GPT2.vocab // size(axes.tp)))[index(axes.tp)] for t in tables]
        return sent, distance([*results, embedding.table.grad, head.matrix.grad], [loss, *mine])


def agreed(pool: pools.Pool, job: Any, degrees: dict[str, int], *args: Any) -> None:
    for rank, (sent, error) in enumerate(pool.run(job, *args)):
        assert error < 1e-12, f"rank {rank} is off by {error}"
        with fake_group(pools.RANKS, rank):
            assert sent == job(rank, *args)[0]
        assert {each.axis for each in sent} == set(degrees)


@pytest.mark.parametrize(("name", "degrees", "choices"), LAYERS, ids=str)
def test_layer(pool: pools.Pool, name: str, degrees: Any, choices: Any) -> None:
    agreed(pool, run_layer, degrees, name, degrees, choices)


@pytest.mark.parametrize("degrees", [{"ep": 4}, {"etp": 2}, {"ep": 2, "etp": 2}], ids=str)
def test_experts(pool: pools.Pool, degrees: Any) -> None:
    agreed(pool, run_experts, degrees, degrees)


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_ends(pool: pools.Pool, sequence_parallel: bool) -> None:
    agreed(pool, run_ends, {"tp": 4}, {"tp": 4}, {"sequence_parallel": sequence_parallel})
