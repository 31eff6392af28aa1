"""Parameters, FLOPs and kept bytes are those of torch computing for real."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from planner.spec.documents import load, save  # noqa: E402
from planner.spec.graph import GraphDocument  # noqa: E402
from profiler.capture.document import capture  # noqa: E402
from tests.profiler.capture.plain import (  # noqa: E402
    MODULES,
    STACKED,
    WIDTH,
    Repeated,
    counted,
    kept_bytes,
    sequence,
)


def check(graph: GraphDocument, model: Any, x: Any) -> None:
    assert graph.totals.parameters == sum(p.numel() for p in model.parameters())
    idle = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert graph.totals.frozen_parameters == idle
    forward, backward = counted(model, x)
    assert (graph.totals.forward_flops, graph.totals.backward_flops) == (forward, backward)
    assert graph.unclassified == ()


@pytest.mark.parametrize("name", MODULES)
def test_parameters_and_flops_equal_torch(name: str) -> None:
    model, x = MODULES[name]()
    check(capture(model, (x,)), model, x)


@settings(max_examples=30)
@given(names=st.lists(st.sampled_from(sorted(STACKED)), min_size=1, max_size=6))
def test_any_stack_equals_torch(names: list[str]) -> None:
    model = nn.Sequential(*(STACKED[name]() for name in names))
    check(capture(model, (sequence(),)), model, sequence())


# a recurrent kernel's workspace is unknown; checkpoints are seen through
@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"recurrent", "blocks"}))
def test_kept_bytes_are_what_autograd_keeps(name: str) -> None:
    model, x = MODULES[name]()
    real = kept_bytes(model, x)
    assert capture(model, (x,)).totals.saved_bytes == pytest.approx(real, rel=0.01)


def test_weights_that_nothing_reads_are_counted_apart() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 3)

        def forward(self, x: Any) -> Any:
            return self.used(x)

    graph = capture(Idle(), (sequence(),))
    assert graph.unused_parameters == 3 * WIDTH + 3
    assert graph.totals.parameters == 5 * WIDTH + 5


def test_tied_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(30, WIDTH)
            self.head = nn.Linear(WIDTH, 30, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens: Any) -> Any:
            return functional.cross_entropy(self.head(self.table(tokens)).mT, tokens)

    graph = capture(Tied(), (torch.zeros(2, 5, dtype=torch.long),))
    assert graph.totals.parameters == 30 * WIDTH
    assert [o.parameters for o in graph.operators] == [30 * WIDTH, 0, 0]
    assert [o.kind for o in graph.operators] == ["embedding", "linear", "cross_entropy"]


def test_a_branch_that_the_loss_does_not_use_has_no_backward() -> None:
    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side = nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 2)

        def forward(self, x: Any) -> Any:
            return {"side": self.side(x), "loss": self.main(x).sum()}

    by_path = {o.path: o for o in capture(Side(), (sequence(),)).operators}
    assert by_path["main"].weight_gradient_flops == 2 * 10 * WIDTH * 2
    assert by_path["side"].weight_gradient_flops == 0


def test_evaluation_mode_and_a_module_without_gradients() -> None:
    model = Repeated().eval().requires_grad_(False)
    graph = capture(model, (sequence(),))
    assert graph.origin is not None
    assert (graph.origin.mode, graph.origin.backward_from) == ("eval", "nothing")
    assert graph.totals.backward_flops == graph.totals.saved_bytes == 0
    assert graph.totals.forward_flops == counted(model, sequence())[0]


def test_output_classes_that_torch_does_not_know() -> None:
    class Record:
        def __init__(self, value: Any) -> None:
            self.value = value

    class Records(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            y = self.inner(x)
            return {"cache": Record(y), "y": y}

    assert capture(Records(), (sequence(),)).totals.forward_flops == 2 * 10 * WIDTH * WIDTH


def test_load_of_save_and_two_captures_are_equal(tmp_path: Any) -> None:
    model, x = MODULES["loss"]()
    first, second = capture(model, (x,)), capture(model, (x,))
    assert first == second
    path = save(first, tmp_path / "graph.json")
    assert load(GraphDocument, path) == first
    assert [p.name for p in tmp_path.iterdir()] == ["graph.json"]
