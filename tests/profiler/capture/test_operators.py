"""The operators of a module: repeated layers, kinds, dims, edges, and what nobody knows."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import register_flop_formula  # noqa: E402

from planner.spec.graph import UNCLASSIFIED  # noqa: E402
from profiler.capture import answer, modules, trace  # noqa: E402
from profiler.capture.document import capture  # noqa: E402
from tests.profiler.capture.plain import (  # noqa: E402
    WIDTH,
    Repeated,
    encoder,
    kept_bytes,
    sequence,
)


def test_the_repeated_layer_of_an_encoder() -> None:
    graph = capture(encoder(5), (sequence(),))
    assert {layer.container for layer in graph.layers} == {"layers.*"}
    assert len({layer.structure for layer in graph.layers}) == 1
    prefixes = [prefix for layer in graph.layers for prefix in layer.prefixes]
    assert prefixes == [f"layers.{index}" for index in range(5)]
    # the first layer alone needs no gradient of its input
    assert [layer.count for layer in graph.layers] == [1, 4]
    first, others = (layer.totals for layer in graph.layers)
    assert others.input_gradient_flops - first.input_gradient_flops == 2 * 10 * WIDTH * 3 * WIDTH


def test_two_kinds_of_layers_are_two_structures() -> None:
    wide = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, dropout=0.0)
    layers = nn.Sequential(*encoder(3).layers, wide, *encoder(2).layers)
    graph = capture(layers, (sequence(),))
    assert len({layer.structure for layer in graph.layers}) == 2
    assert sum(layer.count for layer in graph.layers) == 6


def test_a_shared_block_is_repeated_and_counts_its_weights_once() -> None:
    graph = capture(Repeated(), (sequence(),))
    assert [(layer.container, layer.count) for layer in graph.layers] == [
        ("block*", 1),
        ("block*", 2),
    ]
    assert [layer.totals.parameters for layer in graph.layers] == [WIDTH * WIDTH + WIDTH, 0]
    assert graph.layers[1].prefixes == ("block@1", "block@2")


def test_attention_is_one_operator_with_its_dims() -> None:
    found = [
        operator
        for operator in capture(encoder(1), (sequence(),)).flat_operators()
        if operator.kind == "attention"
    ]
    assert [operator.dims for operator in found] == [
        {"batch": 2, "seq": 5, "kv_seq": 5, "heads": 2, "kv_heads": 2, "head_dim": WIDTH // 2}
    ]


def test_grouped_queries_and_another_width_of_values() -> None:
    class Grouped(nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    q, k, v = (torch.randn(2, heads, 5, d) for heads, d in ((6, 4), (3, 4), (3, 7)))
    graph = capture(Grouped(), (q.requires_grad_(), k.requires_grad_(), v.requires_grad_()))
    (operator,) = graph.operators
    assert operator.dims == {
        "batch": 2,
        "seq": 5,
        "kv_seq": 5,
        "heads": 6,
        "kv_heads": 3,
        "head_dim": 4,
        "value_dim": 7,
    }
    assert operator.forward_flops == 2 * 2 * 6 * 5 * 5 * (4 + 7)
    assert operator.input_gradient_flops == 2 * 2 * 6 * 5 * 5 * (3 * 4 + 2 * 7)


def test_edges_follow_the_data() -> None:
    graph = capture(nn.Sequential(nn.Linear(WIDTH, 4), nn.GELU(), nn.Linear(4, 2)), (sequence(),))
    names = [operator.name for operator in graph.flat_operators()]
    assert names == ["0:0", "1:0", "2:0"]
    assert graph.flat_edges() == ((0, 1), (1, 2))


def test_writing_in_place_is_seen_by_later_readers() -> None:
    class Shift(nn.Module):
        def forward(self, x: Any) -> Any:
            out = torch.zeros_like(x)
            out[:, 1:] = x[:, :-1]
            return out.exp()

    graph = capture(Shift(), (sequence(),))
    kinds = [operator.target.split(".")[1] for operator in graph.operators]
    assert kinds == ["zeros_like", "copy_", "exp"]
    assert graph.edges == ((0, 1), (1, 2))


@torch.library.custom_op("meshwright_test::unknown", mutates_args=())
def unknown(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@unknown.register_fake
def _(x: Any) -> Any:
    return torch.empty_like(x)


@torch.library.custom_op("meshwright_test::registered", mutates_args=())
def registered(x: torch.Tensor) -> torch.Tensor:
    return x @ x.mT


@registered.register_fake
def _(x: Any) -> Any:
    return x.new_empty(*x.shape[:-1], x.shape[-2])


@register_flop_formula(torch.ops.meshwright_test.registered)
def _flops(x: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * x[1] * x[2]


class Custom(nn.Module):
    def __init__(self, op: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.op = op

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = self.op(layer(x)) + x
        return x


def test_an_unknown_operator_is_said_with_its_places_and_bytes() -> None:
    graph = capture(Custom(torch.ops.meshwright_test.unknown), (sequence(),))
    (found,) = graph.unclassified
    assert found.target == "meshwright_test.unknown.default"
    assert found.count == 3
    assert found.where == ("self:0", "self:2", "self:4")
    assert found.forward_bytes == 3 * 2 * 2 * 5 * WIDTH * 4
    kinds = [operator.kind for operator in graph.flat_operators()]
    assert kinds.count(UNCLASSIFIED) == 3
    assert graph.totals.forward_flops == 3 * 2 * 10 * WIDTH * WIDTH


def test_a_custom_operator_with_a_registered_formula_is_counted() -> None:
    graph = capture(Custom(torch.ops.meshwright_test.registered), (torch.randn(1, 8, WIDTH),))
    assert graph.unclassified == ()
    assert [operator.kind for operator in graph.flat_operators()].count("product") == 3
    assert graph.totals.forward_flops == 3 * (2 * 8 * WIDTH * WIDTH + 2 * 8 * 8 * WIDTH)


def test_hand_written_norms_are_one_operator() -> None:
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Any) -> Any:
            x32 = x.float()
            scaled = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + 1e-6)
            return self.weight * scaled.to(x.dtype)

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Hand()).to(torch.bfloat16)
    x = sequence().bfloat16()
    graph = capture(model, (x,))
    kinds = [(operator.kind, operator.dims) for operator in graph.flat_operators()]
    assert [kind for kind, _ in kinds] == ["linear", "rmsnorm"]
    assert kinds[1][1] == {"rows": 10, "width": WIDTH}
    assert graph.flat_edges() == ((0, 1),)
    assert graph.totals.parameters == sum(p.numel() for p in model.parameters())
    assert graph.totals.saved_bytes == pytest.approx(kept_bytes(model, x), rel=0.01)


def test_the_summary_shows_layers_kinds_and_what_is_unknown(capsys: Any) -> None:
    model = nn.Sequential(*encoder(3).layers, Custom(torch.ops.meshwright_test.unknown))
    answer.print_graph(capture(model, (sequence(),), name="custom"))
    shown = capsys.readouterr().out
    for words in ("graph custom", "attention", "meshwright_test.unknown.default", "2,016"):
        assert words in shown
    (row,) = answer.layer_rows(capture(encoder(3), (sequence(),)))
    assert (row["layers"], row["count"]) == ("layers.*", 3)
    kinds = answer.kind_rows(capture(encoder(3), (sequence(),)))
    assert sum(float(str(row["FLOPs"]).split()[0]) for row in kinds) == pytest.approx(100, abs=0.5)


class Node:
    """As much of a node as the module path needs."""

    def __init__(self, *stack: tuple[str, str]) -> None:
        self.meta = {"nn_module_stack": {key: (name, "cls") for key, name in stack}}


@pytest.mark.parametrize(
    ("stack", "path"),
    [
        ([("r", ""), ("a", "captured"), ("b", "captured.model")], "model"),
        ([("r", ""), ("a", "captured"), ("b@1", "captured.m"), ("c@1", "captured.m.q")], "m@1.q"),
        ([("r", ""), ("a", "captured"), ("b", "captured.m"), ("c@2", "captured.m.q")], "m.q@2"),
        ([("r", ""), ("a", "captured"), ("b", "captured.m"), ("c", "captured.other")], "other"),
        ([("r", ""), ("a", "captured")], ""),
    ],
)
def test_paths_of_modules(stack: list[tuple[str, str]], path: str) -> None:
    assert modules.path_of(Node(*stack)) == path


def test_tensors_of_nested_results() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    assert list(trace.tensors({"a": [one], "b": (two, "text", None)})) == [one, two]
