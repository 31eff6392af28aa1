"""Encoders, encoders with decoders, other norms and heads: the training of a single process."""

from typing import Any

import pytest
import torch

from executor import data, refusals
from executor.training.language import Language
from executor.transformer.relative_bias import RelativeBias
from planner.spec import runnable
from planner.spec.documents import InputError
from tests.executor.kinds import KINDS
from tests.executor.plans import ALL, GLOBAL_BATCH, SEQ_LEN, make_plan, plain_model
from tests.executor.pool import Pool
from tests.executor.test_equality import check, micro_batch_of, name_of

CASES = [
    ("bert-masked", {"tp": 2, "pp": 2, "dp": 2, "zero": 2, "recompute": "selective"}),
    ("bert-tokens", {"tp": 4, "dp": 2, "recompute": "full"}),
    ("bert-sequences", {"tp": 4, "pp": 2, "zero": 1}),
    ("gpt2-sequences", {"tp": 2, "dp": 2, "recompute": "selective"}),
    ("t5", {"tp": 2, "dp": 2, "zero": 1, "recompute": "full"}),
    ("bart", {"tp": 2, "dp": 4}),
    ("neox", {"cp": 2, "tp": 2, "pp": 2}),
    ("gemma", {"cp": 2, "pp": 2, "vpp": 2, "schedule": "zbv", "tp": 2}),
]


def compare(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    plan = planned(name, layout)
    refusals.check(plan)
    check(pool, name, plan)


def planned(name: str, layout: dict[str, Any]) -> Any:
    fewest = 2 * layout.get("pp", 1)
    micro_batch = micro_batch_of(GLOBAL_BATCH // layout.get("dp", 1), fewest)
    return make_plan(name, micro_batch=micro_batch, **layout)


@pytest.mark.parametrize(
    ("name", "layout"),
    [pytest.param(*case, id=f"{case[0]}-{name_of(case[1])}") for case in CASES],
)
def test_every_kind_equals_single_process(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    compare(pool, name, layout)


ALONE: list[dict[str, Any]] = [
    *({"dp": 2, "zero": zero} for zero in (0, 1)),
    *({"tp": tp} for tp in (2, 4)),
    *({"recompute": mode} for mode in ("none", "selective", "full")),
    {"pp": 2, "schedule": "gpipe"},
    {"pp": 2, "tp": 2, "dp": 2, "zero": 1, "recompute": "full"},
    {"pp": 2, "vpp": 2, "schedule": "zbv", "recompute": "selective"},
    {"tp": 2, "dp": 4, "zero": 1, "recompute": "selective"},
]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ALONE, ids=name_of)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_on_every_axis(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    if ALL[name].encoder is not None and "pp" in layout:
        with pytest.raises(InputError, match=r"an encoder and a decoder is not cut in \d stages"):
            refusals.check(planned(name, layout))
        return
    compare(pool, name, layout)


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_learns(name: str) -> None:
    model = plain_model(ALL[name])
    tokens, targets = data.global_batch(make_plan(name), seed=0, step=0)
    model(tokens, targets).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


def test_an_encoder_sees_what_follows_and_a_decoder_does_not() -> None:
    tokens = torch.arange(SEQ_LEN)[None].repeat(1, 1)
    changed = tokens.clone()
    changed[0, -1] = 50
    encoder = plain_model(ALL["bert-masked"])
    assert not torch.allclose(encoder(tokens)[:, 0], encoder(changed)[:, 0], rtol=1e-6)
    both = plain_model(ALL["t5"])
    for pair, first_differs in (((changed, tokens), True), ((tokens, changed), False)):
        found = both(torch.stack(pair, dim=1))[:, 0]
        same = torch.allclose(found, both(torch.stack((tokens, tokens), dim=1))[:, 0], rtol=1e-9)
        assert same != first_differs


def test_relative_biases_are_those_of_t5() -> None:
    """Buckets of the paper's code for 32 buckets: exact up to 8 (16), then logarithmic to 128."""
    attention = ALL["t5"].stacks[0].kinds[0].attention.replace(relative_buckets=32)
    for causal, distance, bucket in (
        (False, -7, 7),
        (False, 7, 23),
        (False, -8, 8),
        (False, 127, 31),
        (False, -40, 12),
        (True, -15, 15),
        (True, -16, 16),
        (True, -64, 26),
        (True, -127, 31),
    ):
        made = RelativeBias(attention.replace(causal=causal, heads=1, kv_heads=1))
        with torch.no_grad():
            made.weight.copy_(torch.arange(32.0)[:, None])
        bias = made(128)[0, 0]
        assert bias[max(-distance, 0), max(distance, 0)] == bucket
        assert bool((bias[0, 1:] == -torch.inf).all()) == causal


@pytest.mark.parametrize("name", ALL)
def test_all_of_them_are_runnable(name: str) -> None:
    assert not list(runnable.problems(ALL[name], SEQ_LEN))
    refusals.check(make_plan(name))


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("t5", {"cp": 2}, "layout.cp=2 divides the sequences of causal decoders only"),
        ("bert-tokens", {"cp": 2}, "layout.cp=2 divides the sequences of causal decoders only"),
        ("gpt2-sequences", {"cp": 2}, "cp=2 with model.head.kind=sequence_classification"),
        ("t5", {"tp": 8}, "tp=8 does not divide heads=4"),
        ("bart", {"pp": 2}, "an encoder and a decoder is not cut in 2 stages"),
    ],
)
def test_refused_by_name(name: str, layout: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refusals.check(make_plan(name, **layout))


@pytest.mark.parametrize("name", ["t5", "bert-masked", "gpt2-sequences"])
def test_only_decoders_learn_language(name: str) -> None:
    with pytest.raises(InputError, match="the task language needs one decoder"):
        Language.check(make_plan(name))
