"""Layers: a stack of whole Transformer layers, to see what a sum of operators misses.

The layers are those of a ModelSpec, pre-norm, each with its own weights; all parameters are
views of one flat tensor and their gradients views of another, as in the executor. Several
distinct layers keep the caches as cold as in training.
"""

import torch
from torch import Tensor, nn

from planner.graph import transformer
from planner.graph.view import RankView
from planner.spec.documents import Frozen
from planner.spec.model import ModelSpec
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
        model = self.model
        heads = f"{model.heads}/{model.kv_heads}x{model.head_dim}"
        width = f"hidden {model.hidden} ffn {model.ffn} heads {heads}"
        return f"{model.name} ({width}) {self.micro_batch}x{self.seq_len} {self.dtype}"


class Layer(nn.Module):
    """One pre-norm layer: attention and MLP, each added to the stream [batch, seq, hidden]."""

    def __init__(self, model: ModelSpec):
        super().__init__()
        self.model = model
        h, queries, keys = model.hidden, model.query_width, model.kv_width
        self.attention_norm, self.mlp_norm = _norm(model), _norm(model)
        self.q = nn.Linear(h, queries, bias=model.attention_bias)
        self.k = nn.Linear(h, keys, bias=model.attention_bias)
        self.v = nn.Linear(h, keys, bias=model.attention_bias)
        self.o = nn.Linear(queries, h, bias=model.output_bias)
        self.gate = nn.Linear(h, model.ffn, bias=model.mlp_bias) if model.gated else None
        self.up = nn.Linear(h, model.ffn, bias=model.mlp_bias)
        self.down = nn.Linear(model.ffn, h, bias=model.mlp_bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One layer on the stream."""
        x = x + self._attention(self.attention_norm(x), cos, sin)
        return x + self._mlp(self.mlp_norm(x))

    def _attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        spec = self.model
        q, k, v = self.q(x), self.k(x), self.v(x)
        if spec.positions == "rotary":
            q = rotate(q.view(*q.shape[:2], spec.heads, spec.head_dim), cos, sin).flatten(2)
            k = rotate(k.view(*k.shape[:2], spec.kv_heads, spec.head_dim), cos, sin).flatten(2)
        out: Tensor = self.o(attend(q, k, v, spec.heads, spec.kv_heads))
        return out

    def _mlp(self, x: Tensor) -> Tensor:
        act = ACTIVATIONS[self.model.activation]
        inner = act(self.up(x)) if self.gate is None else act(self.gate(x)) * self.up(x)
        out: Tensor = self.down(inner)
        return out


def _norm(model: ModelSpec) -> nn.Module:
    made = nn.LayerNorm if model.norm == "layernorm" else nn.RMSNorm
    norm: nn.Module = made(model.hidden, eps=model.norm_eps)
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
        angles = torch.randn(reference.seq_len, 1, model.head_dim, device=device)
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
