"""I and W together are B: the same gradients, the same FLOPs, and W holds only the matrices'."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from executor.parallel.recompute import recompute
from executor.parallel.split_backward import Deferral, split
from executor.transformer.model import Transformer
from planner.spec.layout import LayerChoice
from tests.executor.plans import SEED, SEQ_LEN, SPECS, plain_model


def made(name: str, mode: Any = "none") -> tuple[Transformer, Deferral, Tensor, Tensor]:
    model = plain_model(SPECS[name])
    recompute(model, [LayerChoice(recompute=mode)] * SPECS[name].layers)
    tokens = torch.randint(
        0, SPECS[name].vocab, (2, SEQ_LEN), generator=torch.Generator().manual_seed(SEED)
    )
    return model, split(model), tokens, tokens.roll(-1)


def gradients(model: Transformer) -> dict[str, Tensor]:
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def flops(counter: FlopCounterMode) -> int:
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("name", "mode"), [("gpt2", "none"), ("llama", "selective"), ("llama", "full")]
)
def test_two_halves_are_the_whole(name: str, mode: str) -> None:
    whole, _, tokens, targets = made(name, mode)
    loss = whole(tokens, targets)
    with FlopCounterMode(display=False) as b:
        loss.backward()
    model, deferral, tokens, targets = made(name, mode)
    loss = model(tokens, targets)
    with FlopCounterMode(display=False) as i, deferral.opened(0, 0):
        loss.backward()
    early = gradients(model)
    matrices = {k for k, p in model.named_parameters() if p.ndim == 2 and "embedding" not in k}
    assert not matrices & set(early)
    with FlopCounterMode(display=False) as w:
        deferral.finish(0, 0)
    assert flops(i) + flops(w) == flops(b)
    named = dict(whole.named_parameters())
    linears = [named[key] for key in matrices]
    linears += [whole.head.projection.weight] if SPECS[name].tied_embeddings else []
    assert flops(w) == 2 * tokens.numel() * sum(p.numel() for p in linears)
    for key, value in gradients(whole).items():
        torch.testing.assert_close(gradients(model)[key], value, rtol=1e-12, atol=1e-15)


def test_nothing_is_put_aside_unless_it_is_opened() -> None:
    model, deferral, tokens, targets = made("llama")
    model(tokens, targets).backward()
    assert gradients(model).keys() == dict(model.named_parameters()).keys()
    with pytest.raises(KeyError):
        deferral.finish(0, 0)


def test_the_weights_of_many_microbatches_wait_apart() -> None:
    model, deferral, tokens, targets = made("llama")
    for k in range(2):
        loss = model(tokens, targets)
        with deferral.opened(0, k):
            loss.backward()
    deferral.finish(0, 1)
    one = gradients(model)["layers.0.attention.q.weight"]
    deferral.finish(0, 0)
    torch.testing.assert_close(gradients(model)["layers.0.attention.q.weight"], 2 * one)


def test_hooks_see_the_late_gradient() -> None:
    """16-bit weights accumulate in fp32 through a hook (executor.states.flat)."""
    model, deferral, tokens, targets = made("llama")
    weight, seen = model.layers["0"].attention.q.weight, []
    weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad is not None))
    loss = model(tokens, targets)
    with deferral.opened(0, 0):
        loss.backward()
    assert not any(seen)
    deferral.finish(0, 0)
    assert seen.count(True) == 1
