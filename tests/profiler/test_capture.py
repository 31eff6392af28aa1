"""Plain torch modules: captured without storage, compared with torch computing for real."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.spec.documents import InputError, load, parse, save
from planner.spec.graph import UNCLASSIFIED, GraphDocument

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula  # noqa: E402

from profiler.capture import answer, attention, entry, modules, trace  # noqa: E402
from profiler.capture.document import capture, capture_entry  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 8


class Loss(nn.Module):
    """Any module with a loss."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x).square().mean()


class Repeated(nn.Module):
    """One block, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def forward(self, x: Any) -> Any:
        for _ in range(3):
            x = self.block(x)
        return x


class Blocks(nn.Module):
    """Blocks of code that torch.export keeps as graphs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            scale = self.a(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.b(x)
        y = torch.utils.checkpoint.checkpoint(self.c, y.float(), use_reentrant=False)
        return y * scale


class Mixed(nn.Module):
    """Products that are no linear layer, and writing in place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.bilinear = nn.Bilinear(WIDTH, WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        scores = torch.einsum("bsd,btd->bst", x @ self.weight, x)
        y = scores.softmax(-1) @ x
        y = torch.baddbmm(y, scores, x)
        out = torch.zeros_like(y)
        out[:, 1:] = self.bilinear(y, x)[:, :-1]
        out += x @ self.weight.T
        return out


def encoder(layers: int = 3, **options: Any) -> Any:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def pictures() -> tuple[Any, Any]:
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 2, stride=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 6 * 6, 5),
    )
    return body, torch.randn(2, 3, 8, 8)


def sequence() -> Any:
    return torch.randn(2, 5, WIDTH)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.rnn(x)[0]


def frozen() -> Any:
    model = encoder()
    for parameter in model.layers[0].parameters():
        parameter.requires_grad_(False)
    return model


MODULES = {
    "encoder": lambda: (encoder(), sequence()),
    "norm first": lambda: (encoder(norm_first=True, activation="gelu"), sequence()),
    "frozen": lambda: (frozen(), sequence()),
    "pictures": pictures,
    "repeated": lambda: (Repeated(), sequence()),
    "mixed": lambda: (Mixed(), sequence()),
    "recurrent": lambda: (Recurrent(), sequence()),
    "loss": lambda: (Loss(encoder()), sequence()),
    "gradient of the input": lambda: (encoder(), sequence().requires_grad_()),
    "blocks": lambda: (Blocks(), sequence()),
}
STACKED = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "no bias": lambda: nn.Linear(WIDTH, WIDTH, bias=False),
    "frozen": lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False),
    "convolution": lambda: nn.Conv1d(5, 5, 3, padding=1),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "rms norm": lambda: nn.RMSNorm(WIDTH),
    "gelu": nn.GELU,
    "softmax": lambda: nn.Softmax(-1),
    "dropout": lambda: nn.Dropout(0.5),
    "layer": lambda: encoder(1),
    "repeated": Repeated,
}


def counted(model: Any, x: Any) -> tuple[int, int]:
    """FLOPs of forward and backward while torch computes."""
    with FlopCounterMode(display=False, custom_mapping=attention.FORMULAS) as forward:
        out = model(x)
    with FlopCounterMode(display=False, custom_mapping=attention.FORMULAS) as backward:
        if out.requires_grad:
            out.float().sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def kept_bytes(model: Any, x: Any) -> int:
    """Bytes that autograd keeps while torch computes, weights aside."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


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


def state() -> tuple[Any, ...]:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.overrides._get_current_function_mode_stack(),
        torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        torch.nn.init._no_grad_trunc_normal_,
    )


ENTRY = """
import random
import torch
from torch import nn

def build():
    torch.manual_seed(7)
    random.seed(7)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    torch.set_default_device("cpu")
    torch.set_grad_enabled(False)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    nn.init.trunc_normal_(model[0].weight, std=0.02)
    return model, (torch.randn(2, 8),)

def keywords():
    return nn.Linear(8, 4), {"input": torch.randn(2, 8)}

def both():
    print("building")
    return nn.Bilinear(8, 8, 4), (torch.randn(2, 8),), {"input2": torch.randn(2, 8)}

def huge():
    return nn.Linear(400_000, 400_000), (torch.randn(1, 400_000),)

def alone():
    return nn.Linear(8, 4)

def number():
    return 3

def breaks():
    raise KeyError("no such key")

class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return 2 * x

def branch():
    return Branch(), (torch.randn(2),)

def reads():
    depth = int(torch.randn(3).sum().item())
    return nn.Linear(8, depth), (torch.randn(2, 8),)

class Chosen(nn.Module):
    def forward(self, x):
        return x[x > 0]

def chosen():
    return Chosen(), (torch.randn(2, 8),)

class Silent(nn.Module):
    def forward(self, x):
        return "nothing"

class Mapped(nn.Module):
    def forward(self, x):
        return torch.func.vmap(torch.sin)(x)

def mapped():
    return Mapped(), (torch.randn(2, 8),)

def silent():
    return Silent(), (torch.randn(2),)
"""


@pytest.fixture
def place(tmp_path: Any) -> Any:
    path = tmp_path / "mine.py"
    path.write_text(ENTRY)
    return lambda name: f"{path}:{name}"


@pytest.mark.parametrize("name", ["build", "branch", "breaks"])
def test_the_state_of_torch_is_left_as_it_was(place: Any, name: str) -> None:
    before = state()
    try:
        capture_entry(place(name))
    except InputError:
        assert name != "build"
    assert state() == before


def test_a_module_that_exists_is_left_as_it_was() -> None:
    model, x = encoder(), sequence()
    weights = {name: (value, value.clone()) for name, value in model.named_parameters()}
    capture(model, (x,))
    for name, value in model.named_parameters():
        assert value is weights[name][0]
        assert value.equal(weights[name][1])
        assert value.grad is None
    assert type(x) is torch.Tensor
    assert model.training


def test_the_forms_an_entry_may_return(place: Any) -> None:
    assert capture_entry(place("build")).totals.parameters == 2 * 72
    assert capture_entry(place("build")).operators[0].dtype == "bfloat16"
    assert capture_entry(place("keywords")).totals.forward_flops == 2 * 2 * 8 * 4
    assert capture_entry(place("both")).totals.parameters == 4 * 64 + 4


def test_weights_need_no_memory(place: Any) -> None:
    graph = capture_entry(place("huge"))  # 640 GB of weights
    assert graph.totals.parameters == 400_000 * 400_001


def test_an_importable_module_in_the_current_folder(place: Any, monkeypatch: Any) -> None:
    path = place("").removesuffix("mine.py:")
    monkeypatch.chdir(path)
    assert capture_entry("mine:keywords").name == "Linear"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["no function 'missing'", "build"]),
        ("alone", ["without example inputs", "(module, args)"]),
        ("number", ["returned int", "(module, args)"]),
        ("breaks", ["KeyError", "mine.py", "no such key"]),
        ("branch", ["values of tensors", "mine.py", "x.sum() > 0", "configuration or shapes"]),
        ("reads", ["values of tensors", "mine.py", ".item()"]),
        ("chosen", ["depends on the values", "index", "fixed shapes"]),
        ("mapped", ["no memory of its own", "whole batch"]),
        ("silent", ["returns no tensors"]),
    ],
)
def test_errors_name_the_place_and_the_way_out(place: Any, name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        capture_entry(place(name))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nocolon", ["MODULE:FUNCTION"]),
        ("no_such_module_at_all:f", ["no module 'no_such_module_at_all'"]),
        ("missing.py:f", ["missing.py", "no such file"]),
    ],
)
def test_errors_of_the_place_itself(where: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        entry.find(where)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_cannot_be_imported(tmp_path: Any) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        entry.find(f"{tmp_path / 'broken.py'}:f")


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


def command(*arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, "meshwright.py", "capture", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_the_command_writes_the_document_and_prints_it(place: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    done = command(place("both"), "-o", str(path), "--name", "mine", "--format", "json")
    assert done.returncode == 0, done.stderr
    graph = parse(GraphDocument, json.loads(done.stdout), "stdout")
    assert graph == load(GraphDocument, path)
    assert graph.name == "mine"
    assert graph.origin is not None
    assert graph.origin.call == place("both")
    assert done.stderr == f"building\nwrote {path}\n"


def test_the_command_refuses_with_exit_code_2(place: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    done = command(place("branch"), "-o", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("meshwright: capture:")
    assert done.stderr.count("\n") == 1
    assert not path.exists()


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
