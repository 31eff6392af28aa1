import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.parallel.mesh import close_mesh, make_mesh
from executor.parallel.tensor_parallel import Gather, ParallelCrossEntropy, Scatter, divide
from executor.transformer.head import CrossEntropy
from executor.transformer.model import meta_model
from planner.spec.layout import Layout
from tests.executor.plans import SEQ_LEN, SPECS
from tests.executor.pool import TIMEOUT, Pool


@settings(deadline=None, max_examples=15)
@given(size=st.sampled_from([2, 4]), name=st.sampled_from(sorted(SPECS)))
def test_slices_cover_every_divided_parameter_once(size: int, name: str) -> None:
    whole = dict(meta_model(SPECS[name], SEQ_LEN).named_parameters(remove_duplicate=False))
    ranks = []
    for rank in range(size):
        model = meta_model(SPECS[name], SEQ_LEN)
        ranks.append((divide(model, rank, size, None), dict(model.named_parameters())))
    for key, full in whole.items():
        parts = [slices.get(key) for slices, _ in ranks]
        if parts[0] is None:
            assert "norm" in key or "positions" in key or key.endswith(("o.bias", "down.bias"))
            continue
        dim = parts[0].dim
        bounds = [(part.start, part.stop) for part in parts if part]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == full.shape[dim]
        assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))
        for part, (_, parameters) in zip(parts, ranks, strict=True):
            if part is not None and key in parameters:
                assert parameters[key].shape[dim] == part.stop - part.start


def test_one_rank_changes_nothing() -> None:
    model = meta_model(SPECS["gpt2"], SEQ_LEN)
    assert divide(model, 0, 1, None) == {}


def in_group(rank: int, job: Any, *args: Any) -> Any:
    mesh = make_mesh(Layout(tp=4), rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    result = job(mesh, *args)
    close_mesh(mesh)
    return result


def gather_and_scatter(mesh: Any) -> tuple[torch.Tensor, ...]:
    x = torch.arange(24.0).view(2, 3, 4) + 100 * mesh.rank
    x.requires_grad_()
    gathered = Gather.apply(x, mesh.tp, 4)
    back = Scatter.apply(gathered, mesh.tp, 4)
    back.backward(torch.full_like(back, mesh.rank + 1.0))
    return x.detach(), gathered.detach(), back.detach(), x.grad


def test_gather_and_scatter_mirror_each_other(pool: Pool) -> None:
    results = pool.run(in_group, gather_and_scatter)[:4]
    flat = torch.cat([x.reshape(-1) for x, *_ in results])
    for rank, (x, gathered, back, grad) in enumerate(results):
        assert gathered.shape == (2, 12, 4)
        assert torch.equal(gathered.reshape(-1), flat)
        assert torch.equal(back, 4 * x)
        assert torch.equal(grad, torch.full_like(grad, 4.0 * (rank + 1)))


def parallel_loss(mesh: Any, logits: torch.Tensor, targets: torch.Tensor) -> tuple[Any, Any]:
    each = -(-logits.shape[1] // 4)
    own = logits[:, mesh.rank * each : (mesh.rank + 1) * each].clone().requires_grad_()
    loss = ParallelCrossEntropy(mesh.rank * each, mesh.tp)(own, targets)
    loss.backward(torch.tensor(0.5, dtype=loss.dtype))
    return loss.detach(), own.grad


@pytest.mark.parametrize("shift", [0.0, 3e4])
def test_parallel_cross_entropy_equals_the_plain_one(pool: Pool, shift: float) -> None:
    """Also with large logits, where exp overflows without the maximum."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 29, generator=generator, dtype=torch.float64) + shift
    targets = torch.tensor([0, 7, 8, 15, 28, 23])
    plain = logits.clone().requires_grad_()
    expected = CrossEntropy()(plain, targets)
    expected.backward(torch.tensor(0.5, dtype=torch.float64))
    results = pool.run(in_group, parallel_loss, logits, targets)[:4]
    for loss, _ in results:
        assert torch.allclose(loss, expected, rtol=1e-12)
    assert torch.allclose(torch.cat([grad for _, grad in results], dim=1), plain.grad, rtol=1e-10)
