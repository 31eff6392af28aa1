"""Norms: LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019)."""

from torch import nn

from planner.spec.model import ModelSpec


def norm(spec: ModelSpec) -> nn.Module:
    """The model's norm over the residual stream."""
    kind = nn.LayerNorm if spec.norm == "layernorm" else nn.RMSNorm
    return kind(spec.hidden, eps=spec.norm_eps, elementwise_affine=spec.norm_affine)
