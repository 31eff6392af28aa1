import torch

from executor.transformer.initial import full_value


def test_values_depend_on_seed_and_name_only() -> None:
    torch.manual_seed(1)
    first = full_value("layers.0.mlp.up.weight", (8, 4), seed=0)
    torch.manual_seed(2)
    assert torch.equal(first, full_value("layers.0.mlp.up.weight", (8, 4), seed=0))
    assert not torch.equal(first, full_value("layers.1.mlp.up.weight", (8, 4), seed=0))
    assert not torch.equal(first, full_value("layers.0.mlp.up.weight", (8, 4), seed=1))


def test_norm_weights_lie_around_one() -> None:
    assert abs(full_value("head.norm.weight", (1000,), 0).mean() - 1.0) < 0.01
    assert abs(full_value("head.norm.bias", (1000,), 0).mean()) < 0.01
    assert abs(full_value("head.projection.weight", (100, 100), 0).std() - 0.02) < 0.001
