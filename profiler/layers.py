"""Layers: a stack of whole Transformer layers, to see what a sum of operators misses.

The layers are those of a plain decoder (planner.spec.plain), each with its own weights; all
parameters are views of one flat tensor and their gradients views of another, as in the executor.
Several distinct layers keep the caches as cold as in training.
"""

import torch
from torch import Tensor, nn

from planner.graph import transformer
from planner.graph.view import RankView
from planner.spec import plain
from planner.spec.documents import Frozen, InputError
from planner.spec.model import ModelSpec, Norm
from planner.spec.workload import Dtype
from profiler.kinds import (
    ACTIVATIONS,
    DTYPES,
    OperatorRequest,
    accumulate,
    accumulator,
    attend,
    rotate,
)


class Reference(Frozen):
    """The layers that are timed whole: a model, and the microbatch that goes through them."""

    model: ModelSpec
    seq_len: int
    micro_batch: int
    dtype: Dtype

    def operators(self) -> list[OperatorRequest]:
        """The operators of one layer, in order, repeated as often as they run."""
        view = RankView(self.micro_batch, self.seq_len, dtype=self.dtype)
        graph = transformer.layer_graph(self.model, view)
        return [
            OperatorRequest(operator.kind, dict(operator.dims), self.dtype)
            for operator in transformer.operators(graph)
        ]

    def __str__(self) -> str:
        model, of = self.model, self.model.layer.attention
        heads = f"{of.heads}/{of.kv_heads}x{of.head_dim}"
        width = f"hidden {model.hidden} ffn {plain.mlp(model).ffn} heads {heads}"
        return f"{model.name} ({width}) {self.micro_batch}x{self.seq_len} {self.dtype}"


def check(model: ModelSpec, seq_len: int) -> None:
    """Raise InputError for a model whose layers cannot be timed whole."""
    for problem in plain.problems(model, seq_len):
        raise InputError(
            f"the layers of {model.name!r} cannot be timed: {problem}; profile {plain.PLAIN}, "
            f"or no model at all for the generic grid"
        )


class Layer(nn.Module):
    """One pre-norm layer: attention and MLP, each added to the stream [batch, seq, hidden]."""

    def __init__(self, model: ModelSpec):
        super().__init__()
        self.of, self.mlp = model.layer.attention, plain.mlp(model)
        h, f, of, bias = model.hidden, self.mlp.ffn, self.of, self.mlp.bias
        self.attention_norm = _norm(model, h, model.norm)
        self.mlp_norm = _norm(model, h, model.norm)
        self.q = nn.Linear(h, of.query_width, bias=of.q_bias)
        self.k = nn.Linear(h, of.key_width, bias=of.k_bias)
        self.v = nn.Linear(h, of.value_width, bias=of.v_bias)
        self.o = nn.Linear(of.output_width, h, bias=of.o_bias)
        self.q_norm, self.k_norm = (
            _norm(model, of.head_dim, "rmsnorm") if of.qk_norm else None for _ in range(2)
        )
        self.gate = nn.Linear(h, f, bias=bias) if self.mlp.gated else None
        self.up = nn.Linear(h, f, bias=bias)
        self.down = nn.Linear(f, h, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One layer on the stream."""
        x = x + self._attention(self.attention_norm(x), cos, sin)
        return x + self._mlp(self.mlp_norm(x))

    def _attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        of = self.of
        q = self._heads(self.q(x), self.q_norm, cos, sin)
        k = self._heads(self.k(x), self.k_norm, cos, sin)
        out: Tensor = self.o(attend(q, k, self.v(x), of.heads, of.kv_heads))
        return out

    def _heads(self, x: Tensor, norm: nn.Module | None, cos: Tensor, sin: Tensor) -> Tensor:
        """Norm and rotate each head of [batch, seq, heads * head_dim], where the model does."""
        heads = x.view(*x.shape[:2], -1, self.of.head_dim)
        if norm is not None:
            heads = norm(heads)
        return (rotate(heads, cos, sin) if self.of.rotary_dim else heads).flatten(2)

    def _mlp(self, x: Tensor) -> Tensor:
        act = ACTIVATIONS[self.mlp.activation]
        inner = act(self.up(x)) if self.gate is None else act(self.gate(x)) * self.up(x)
        out: Tensor = self.down(inner)
        return out


def _norm(model: ModelSpec, width: int, kind: Norm) -> nn.Module:
    made = nn.LayerNorm if kind == "layernorm" else nn.RMSNorm
    norm: nn.Module = made(width, eps=model.norm_eps, elementwise_affine=model.norm_affine)
    return norm


class Stack:
    """Layers with an input and an incoming gradient, forward and backward apart."""

    def __init__(self, reference: Reference, layers: int, device: str):
        dtype, model = DTYPES[reference.dtype], reference.model
        self.layers = nn.ModuleList(Layer(model) for _ in range(layers)).to(device, dtype)
        flatten(self.layers)
        shape = (reference.micro_batch, reference.seq_len, model.hidden)
        self.x = torch.randn(shape, device=device).to(dtype).requires_grad_()
        self.gradient = torch.randn(shape, device=device).to(dtype)
        angles = torch.randn(reference.seq_len, 1, model.layer.attention.rotary_dim, device=device)
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(self) -> Tensor:
        """All layers; the result keeps their graph."""
        x = self.x
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return x

    def backward(self, output: Tensor) -> None:
        """Gradients of all weights, added to those there are, and of the input."""
        torch.autograd.backward(output, self.gradient)


def flatten(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Make all parameters views of one flat tensor; their gradients add to views of another."""
    parameters = list(module.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient = torch.zeros_like(flat, dtype=accumulator(flat.dtype))
    offset = 0
    for parameter in parameters:
        end = offset + parameter.numel()
        parameter.data = flat[offset:end].view(parameter.shape)
        accumulate(parameter, gradient[offset:end].view(parameter.shape))
        offset = end
    return flat, gradient
