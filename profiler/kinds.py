"""Kinds: what runs for each kind of operator, as one rank of the executor runs it.

`prepare(request, device)` allocates one set of buffers of an operator and returns a Work whose
forward runs exactly the torch calls of its kind. Buffers are of the kinds that training has:

    activations   leaves that require a gradient; their .grad is None before each backward, so
                  autograd hands the gradient over without a copy, as inside a graph
    weights       leaves whose .grad exists; every backward adds to it. 16-bit weights add to an
                  fp32 buffer instead, through a hook
    tokens        integers

The optimiser's operators work on fp32 tensors where weights have 16 bits, and AdamW then rounds
its master copy to the weights. 16-bit logits are widened to fp32 before the loss.

The backward of `residual` is the sum of the two gradients that meet where the stream forks.
Bare products (profiler.products) and `attention_math`, which stores its scores, are no operators
of a graph: they are timed to tell a device's constants.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from planner.spec.documents import InputError
from planner.spec.workload import DTYPE_BYTES
from profiler import products

DTYPES: dict[str, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": products.FP8,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
}
UPDATES = ("adamw", "gradient_norm", "zero_gradient")
FORWARD_ONLY = (*UPDATES, *products.MATMULS)


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """One operator to time: kind and dims as in planner.graph, dtype as in a workload."""

    kind: str
    dims: dict[str, int]
    dtype: str

    @property
    def key(self) -> tuple[str, tuple[tuple[str, int], ...], str]:
        """What makes two requests the same measurement."""
        return (self.kind, tuple(sorted(self.dims.items())), self.dtype)

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(f'{k}={v}' for k, v in self.dims.items())} {self.dtype}"


def distinct(requests: Iterable[OperatorRequest]) -> list[OperatorRequest]:
    """Each request once, in order."""
    found: dict[object, OperatorRequest] = {}
    for request in requests:
        found.setdefault(request.key, request)
    return list(found.values())


class Buffers:
    """Makes the tensors of one operator and remembers which are activations."""

    def __init__(self, dtype: torch.dtype, device: str):
        self.dtype, self.device = dtype, device
        self.activations: list[Tensor] = []

    def activation(self, *shape: int) -> Tensor:
        """An input that wants a gradient."""
        self.activations.append(self.constant(*shape).requires_grad_())
        return self.activations[-1]

    def weight(self, *shape: int) -> Tensor:
        """A parameter with a gradient to add to."""
        made = (self.constant(*shape) * 0.02).requires_grad_()
        accumulate(made, torch.zeros_like(made, dtype=accumulator(self.dtype)))
        return made

    def state(self, count: int) -> Tensor:
        """A flat tensor in the format of gradients and optimiser states, [count]."""
        return torch.randn(count, device=self.device, dtype=accumulator(self.dtype))

    def constant(self, *shape: int) -> Tensor:
        """A tensor without gradient."""
        return torch.randn(*shape, device=self.device, dtype=torch.float32).to(self.dtype)

    def tokens(self, count: int, vocab: int) -> Tensor:
        """Token numbers below vocab, [count]."""
        return torch.randint(vocab, (count,), device=self.device)


@dataclass(slots=True)
class Work:
    """One operator on its own buffers.

    run: the forward. fork: a tensor whose second gradient meets the first in the backward.
    """

    run: Callable[[], Tensor]
    buffers: Buffers
    fork: Tensor | None = None
    has_backward: bool = True
    roots: tuple[Tensor, ...] = field(default=())
    gradients: tuple[Tensor, ...] = field(default=())

    def before_forward(self) -> None:
        """Read the inputs: in training the operator before has just written them."""
        _touch(self.buffers.activations)

    def forward(self) -> None:
        """Run the forward and keep its graph."""
        output = self.run()
        if self.has_backward:
            self.roots = (output,) if self.fork is None else (output, self.fork)

    def before_backward(self) -> None:
        """Make the incoming gradients, once, drop those of the last backward, and read the new."""
        if not self.gradients:
            self.gradients = tuple(_incoming(root) for root in self.roots)
        for leaf in self.buffers.activations:
            leaf.grad = None
        _touch(self.gradients)

    def backward(self) -> None:
        """Run the backward of the last forward."""
        torch.autograd.backward(self.roots, self.gradients)

    def after_backward(self) -> None:
        """Let go of the outputs; a fork belongs to the buffers and is made anew."""
        self.roots = ()
        if self.fork is not None:
            self.fork = self.buffers.activations[0].view_as(self.buffers.activations[0])


def _touch(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        tensor.detach().sum()


def _incoming(root: Tensor) -> Tensor:
    return torch.ones_like(root) if root.dim() == 0 else torch.randn_like(root)


def prepare(request: OperatorRequest, device: str = "cpu") -> Work:
    """Allocate the buffers of an operator. Raises InputError for an unknown kind or dtype."""
    check(request, device)
    make = Buffers(DTYPES[request.dtype], device)
    if request.kind in products.MATMULS:
        run = products.product(request.kind, **request.dims, dtype=make.dtype, device=device)
        return Work(run, make, has_backward=False)
    if request.kind in KINDS:
        return KINDS[request.kind](make, **request.dims)
    gated = request.kind.startswith("gated_")
    return _activation(make, request.kind.removeprefix("gated_"), gated, **request.dims)


def prepare_empty(dtype: str, device: str = "cpu") -> Work:
    """An operator that does nothing, to see what a call of autograd's engine costs."""
    make = Buffers(torch.float32 if dtype == "fp8" else DTYPES[dtype], device)
    x = make.activation(1)
    return Work(lambda: x.view_as(x), make)


def check(request: OperatorRequest, device: str = "cpu") -> None:
    """Raise InputError if the operator's kind or dtype cannot be timed here."""
    known = [*KINDS, *products.MATMULS]
    if request.kind not in known and request.kind.removeprefix("gated_") not in ACTIVATIONS:
        raise InputError(
            f"operator kind {request.kind!r} is unknown; known: "
            f"{', '.join([*known, *ACTIVATIONS])} and gated_ activations"
        )
    if request.dtype == "fp8" and request.kind == products.MATMULS[0]:
        return
    if request.dtype not in DTYPES or request.dtype == "fp8" or _no_tf32(request.dtype, device):
        raise InputError(
            f"operator dtype {request.dtype!r} cannot be profiled on {device}; "
            f"choose {', '.join(name for name in DTYPES if name not in ('tf32', 'fp8'))}"
        )


def _no_tf32(dtype: str, device: str) -> bool:
    return dtype == "tf32" and device == "cpu"


def footprint_bytes(request: OperatorRequest) -> float:
    """About how many bytes one set of buffers holds, gradients and output included."""
    wide = 4 if request.kind in UPDATES else 1
    return _elements(request.kind, request.dims) * max(wide, DTYPE_BYTES[request.dtype])


def _elements(kind: str, dims: dict[str, int]) -> float:
    match kind:
        case "linear":
            return 2.0 * (dims["k"] * dims["n"] + dims["m"] * (dims["k"] + dims["n"]))
        case "matmul_nt" | "matmul_nn" | "matmul_tn":
            m, n, k = dims["m"], dims["n"], dims["k"]
            return 2.0 * m * n + m * k + n * k
        case "attention" | "attention_math":
            widths = 2 * dims["heads"] + 2 * dims["kv_heads"]
            whole = 2.0 * dims["batch"] * dims["seq"] * widths * dims["head_dim"]
            stored = 4.0 * dims["batch"] * dims["heads"] * dims["seq"] ** 2
            return whole + (stored if kind == "attention_math" else 0.0)
        case "embedding":
            return 2.0 * (dims["vocab"] + dims["rows"]) * dims["width"]
        case "position_embedding":
            return (2.0 * dims["positions"] + 3.0 * dims["rows"]) * dims["width"]
        case "cross_entropy" | "parallel_cross_entropy":
            return 4.0 * dims["rows"] * dims["vocab"]
        case "rotary":
            return 4.0 * dims["rows"] * dims["heads"] * dims["head_dim"]
        case "adamw":
            return 4.0 * dims["parameters"]
        case "gradient_norm" | "zero_gradient":
            return float(dims["parameters"])
    return (7.0 if kind.startswith("gated_") else 4.0) * dims["rows"] * dims["width"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Causal attention of [batch, seq, heads * head_dim] tensors."""
    batch, seq, width = q.shape
    query = q.view(batch, seq, heads, width // heads).transpose(1, 2)
    key, value = (t.view(batch, seq, kv_heads, width // heads).transpose(1, 2) for t in (k, v))
    grouped = heads != kv_heads
    out = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=grouped
    )
    return out.transpose(1, 2).reshape(batch, seq, width)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the first elements of [..., heads, head_dim]: as many as cos has.

    cos and sin broadcast over the heads.
    """
    width = cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat((rotate(x[..., :width], cos, sin), x[..., width:]), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Format in which gradients of weights of this format are summed."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def widened(x: Tensor) -> Tensor:
    """A 16-bit tensor in fp32; any other as it is."""
    return x.to(accumulator(x.dtype))


def accumulate(weight: Tensor, gradient: Tensor) -> None:
    """Have every backward add the gradient of `weight` to `gradient`, of the same shape."""
    if gradient.dtype == weight.dtype:
        weight.grad = gradient
        return

    def add(leaf: Tensor) -> None:
        gradient.add_(leaf.grad)
        leaf.grad = None

    weight.register_post_accumulate_grad_hook(add)


class ShardCrossEntropy(torch.autograd.Function):
    """Mean cross entropy over a vocabulary shard, without the collectives between shards."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [rows, vocab], targets [rows] in the numbering of the whole vocabulary."""
        wide = widened(logits)
        shifted = wide - wide.amax(dim=-1, keepdim=True)
        outside = targets >= logits.shape[-1]
        index = targets.masked_fill(outside, 0).unsqueeze(1)
        picked = shifted.gather(1, index).squeeze(1).masked_fill_(outside, 0.0)
        total = shifted.exp_().sum(dim=-1)
        ctx.save_for_backward(shifted, total, index, outside)
        ctx.dtype = logits.dtype
        return (total.log() - picked).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """(softmax - one hot) / rows, over the kept exponentials."""
        exponents, total, index, outside = ctx.saved_tensors
        share = gradient / len(total)
        exponents.mul_((share / total).unsqueeze(1))
        here = torch.where(outside, 0.0, -share).to(exponents.dtype)
        exponents.scatter_add_(1, index, here.unsqueeze(1))
        return exponents.to(ctx.dtype), None


def _linear(make: Buffers, m: int, k: int, n: int, bias: int) -> Work:
    x, weight = make.activation(m, k), make.weight(n, k)
    offset = make.weight(n) if bias else None
    return Work(lambda: functional.linear(x, weight, offset), make)


def _attention(
    make: Buffers, batch: int, seq: int, heads: int, kv_heads: int, head_dim: int
) -> Work:
    q = make.activation(batch, seq, heads * head_dim)
    k, v = (make.activation(batch, seq, kv_heads * head_dim) for _ in range(2))
    return Work(lambda: attend(q, k, v, heads, kv_heads), make)


def _attention_math(make: Buffers, **dims: int) -> Work:
    """The same with the scores stored: torch's composite kernel."""
    work = _attention(make, **dims)
    attended = work.run

    def run() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return attended()

    work.run = run
    return work


def _layernorm(make: Buffers, rows: int, width: int) -> Work:
    x, weight, bias = make.activation(rows, width), make.weight(width), make.weight(width)
    return Work(lambda: functional.layer_norm(x, (width,), weight, bias), make)


def _rmsnorm(make: Buffers, rows: int, width: int) -> Work:
    x, weight = make.activation(rows, width), make.weight(width)
    return Work(lambda: functional.rms_norm(x, (width,), weight, 1e-5), make)


def _rotary(make: Buffers, rows: int, heads: int, head_dim: int) -> Work:
    x = make.activation(rows, heads, head_dim)
    cos, sin = make.constant(rows, 1, head_dim), make.constant(rows, 1, head_dim)
    return Work(lambda: rotate(x, cos, sin), make)


def _activation(make: Buffers, name: str, gated: bool, rows: int, width: int) -> Work:
    act, x = ACTIVATIONS[name], make.activation(rows, width)
    if not gated:
        return Work(lambda: act(x), make)
    up = make.activation(rows, width)
    return Work(lambda: act(x) * up, make)


def _residual(make: Buffers, rows: int, width: int) -> Work:
    leaf, y = make.activation(rows, width), make.constant(rows, width)
    work = Work(lambda: _fork_of(work) + y, make, fork=leaf.view_as(leaf))
    return work


def _fork_of(work: Work) -> Tensor:
    assert work.fork is not None
    return work.fork


def _embedding(make: Buffers, rows: int, width: int, vocab: int) -> Work:
    tokens, weight = make.tokens(rows, vocab), make.weight(vocab, width)
    return Work(lambda: functional.embedding(tokens, weight), make)


def _position_embedding(make: Buffers, rows: int, width: int, positions: int) -> Work:
    x, weight = make.constant(rows, width), make.weight(positions, width)
    places = torch.arange(rows, device=make.device) % positions
    return Work(lambda: x + functional.embedding(places, weight), make)


def _cross_entropy(make: Buffers, rows: int, vocab: int) -> Work:
    logits, targets = make.activation(rows, vocab), make.tokens(rows, vocab)
    return Work(lambda: functional.cross_entropy(widened(logits), targets), make)


def _parallel_cross_entropy(make: Buffers, rows: int, vocab: int) -> Work:
    logits, targets = make.activation(rows, vocab), make.tokens(rows, 2 * vocab)

    def run() -> Tensor:
        loss: Tensor = ShardCrossEntropy.apply(logits, targets)
        return loss

    return Work(run, make)


def _adamw(make: Buffers, parameters: int) -> Work:
    master = make.state(parameters).requires_grad_()
    master.grad = make.state(parameters)
    optimizer = torch.optim.AdamW([master], lr=1e-4, fused=True)
    rounded = make.constant(parameters) if make.dtype != master.dtype else None

    def run() -> Tensor:
        optimizer.step()
        return master if rounded is None else rounded.copy_(master.detach())

    return Work(run, make, has_backward=False)


def _gradient_norm(make: Buffers, parameters: int) -> Work:
    flat = make.state(parameters)
    return Work(lambda: torch.linalg.vector_norm(flat), make, has_backward=False)


def _zero_gradient(make: Buffers, parameters: int) -> Work:
    flat = make.state(parameters)
    return Work(flat.zero_, make, has_backward=False)


KINDS: dict[str, Callable[..., Work]] = {
    "linear": _linear,
    "attention": _attention,
    "attention_math": _attention_math,
    "layernorm": _layernorm,
    "rmsnorm": _rmsnorm,
    "rotary": _rotary,
    "residual": _residual,
    "embedding": _embedding,
    "position_embedding": _position_embedding,
    "cross_entropy": _cross_entropy,
    "parallel_cross_entropy": _parallel_cross_entropy,
    "adamw": _adamw,
    "gradient_norm": _gradient_norm,
    "zero_gradient": _zero_gradient,
}
