import torch

from executor.memory import StorageMeter


def test_counts_live_storages_once() -> None:
    held = torch.zeros(100)
    with StorageMeter([held, held.view(10, 10)]) as meter:
        assert meter.held_bytes() == 400
        x = torch.ones(1000)
        view = x.view(10, 100)
        assert meter.held_bytes() == 4400
        del x
        assert meter.held_bytes() == 4400
        del view
        assert meter.held_bytes() == 400
        assert meter.take_peak() == 4400
        assert meter.take_peak() == 400


def test_sees_what_autograd_keeps_and_makes() -> None:
    weight = torch.ones(50, 50, requires_grad=True)
    weight.grad = torch.zeros(50, 50)
    x = torch.ones(20, 50)
    with StorageMeter([weight, weight.grad, x]) as meter:
        base = meter.held_bytes()
        y = torch.nn.functional.gelu(torch.nn.functional.linear(x, weight)).sum()
        assert meter.held_bytes() == base + 20 * 50 * 4 + 4
        y.backward()
        assert meter.take_peak() >= base + 50 * 50 * 4
        del y
        assert meter.held_bytes() == base
