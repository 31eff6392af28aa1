"""Classify: the kind and the dims of a torch operator.

A kind is found by the operator's name without namespace and overload; what torch tags as
pointwise is elementwise. Kinds and their dims (rows: all dims but the last, multiplied):

    linear               m k n bias           an activation times a weight
    matmul               batch m k n          a product of two activations
    grouped_linear       m k n groups         rows of each group times the group's weight
    attention            batch seq kv_seq heads kv_heads head_dim, value_dim if it differs
    convolution          batch channels_in channels_out kernel positions groups
    embedding            rows width vocab
    layernorm, rmsnorm, groupnorm, batchnorm, softmax, activation, dropout   rows width
    elementwise, reduction, copy, indexing, creation, pooling                rows width
    cross_entropy        rows vocab           the loss, with its softmax
    recurrent, product   rows width           FLOPs counted by torch, inner structure unknown
                                              (nor the workspace that a recurrent kernel keeps)
    unclassified         rows width           bytes only

Views are no operators at all. `copy` moves elements that torch could not show through a view
(cat, or a transposed tensor made contiguous).
"""

import math
from typing import Any

import torch

from planner.spec.graph import UNCLASSIFIED
from profiler.capture.probe import GROUPED, Sketch, opname

_NAMES = {
    "linear": ("linear",),
    "matmul": (
        "matmul",
        "mm",
        "bmm",
        "addmm",
        "baddbmm",
        "addbmm",
        "mv",
        "addmv",
        "dot",
        "einsum",
        "vdot",
    ),
    "grouped_linear": GROUPED,
    "attention": ("scaled_dot_product_attention",),
    "convolution": (
        *("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "conv_depthwise3d"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv_tbc"),
    ),
    "embedding": ("embedding", "embedding_bag"),
    "layernorm": ("layer_norm", "native_layer_norm"),
    "rmsnorm": ("rms_norm", "_fused_rms_norm"),
    "groupnorm": ("group_norm", "native_group_norm", "instance_norm"),
    "batchnorm": ("batch_norm", "native_batch_norm", "_native_batch_norm_legit"),
    "softmax": ("softmax", "_softmax", "log_softmax", "_log_softmax"),
    "activation": (
        *("gelu", "silu", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "mish", "glu"),
        *("sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "softplus", "prelu"),
        *("log_sigmoid", "hardshrink", "softshrink", "threshold", "tanhshrink", "rrelu"),
    ),
    "dropout": ("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "bernoulli"),
    "cross_entropy": ("cross_entropy_loss", "nll_loss", "nll_loss_nd", "nll_loss2d"),
    "reduction": (
        *("sum", "mean", "prod", "amax", "amin", "aminmax", "max", "min", "argmax", "argmin"),
        *("var", "std", "var_mean", "std_mean", "all", "any", "logsumexp", "norm", "histc"),
        *("linalg_vector_norm", "cumsum", "cumprod", "count_nonzero", "nansum", "median"),
        *(
            "mse_loss",
            "l1_loss",
            "smooth_l1_loss",
            "huber_loss",
            "kl_div",
            "cosine_similarity",
            "_weight_norm",
        ),
        *("binary_cross_entropy", "binary_cross_entropy_with_logits", "bincount", "cummax"),
    ),
    "copy": (
        *("cat", "stack", "contiguous", "clone", "reshape", "flatten", "repeat", "roll", "flip"),
        *(
            "tile",
            "repeat_interleave",
            "pad",
            "constant_pad_nd",
            "to",
            "_to_copy",
            "copy",
            "hstack",
        ),
        *("vstack", "unfold", "im2col", "col2im", "lift_fresh_copy", "type_as", "permute_copy"),
        *("rot90", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "concat", "concatenate"),
    ),
    "indexing": (
        *("index", "index_select", "gather", "take", "take_along_dim", "scatter", "scatter_add"),
        *("index_put", "index_add", "index_copy", "index_fill", "masked_select", "masked_scatter"),
        *("topk", "sort", "argsort", "searchsorted", "bucketize", "one_hot", "tril", "triu"),
        *("scatter_reduce", "select_scatter", "slice_scatter", "embedding_renorm", "msort"),
    ),
    "creation": (
        *("arange", "zeros", "ones", "full", "empty", "rand", "randn", "randint", "linspace"),
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor", "eye", "randperm"),
        *("empty_strided", "new_empty_strided", "uniform", "normal", "zero", "fill", "exponential"),
        *("tril_indices", "triu_indices", "logspace", "meshgrid"),
    ),
    "pooling": (
        *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *(
            "adaptive_avg_pool1d",
            "adaptive_avg_pool2d",
            "adaptive_avg_pool3d",
            "upsample_bilinear2d",
        ),
        *("adaptive_max_pool1d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bicubic2d"),
        *("upsample_nearest1d", "upsample_linear1d", "grid_sampler", "max_pool2d_with_indices"),
    ),
    "recurrent": ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"),
    "product": ("bilinear", "_trilinear", "cdist", "outer", "tensordot", "chain_matmul"),
}
_POINTWISE = (  # torch's composites of operators that it tags as pointwise
    *("masked_fill", "where", "__and__", "__or__", "__xor__", "and", "or", "xor", "floor_divide"),
    *("__iand__", "__ior__", "__lshift__", "__rshift__", "true_divide", "divide", "multiply"),
    *("subtract", "rsub", "square", "float_power", "negative", "absolute", "clip", "not_equal"),
    *("greater", "greater_equal", "less", "less_equal", "isfinite", "isclose", "nan_to_num"),
    *("diff", "addcmul", "addcdiv", "lerp", "logical_and", "logical_or", "logical_not"),
    *("arctan2", "fix", "isreal", "special_expit", "sinc", "ldexp", "real", "imag"),
    *("complex", "polar", "conj_physical"),
)
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
_NORMS = ("layernorm", "rmsnorm", "groupnorm", "batchnorm")


def kind_of(target: Any, inputs: list[Sketch], flops: int) -> str:
    """The kind of an operator that is no view; inputs: its tensors in order."""
    found = _KINDS.get(opname(target))
    if found == "matmul":
        return "linear" if _times_weight(opname(target), inputs) else "matmul"
    if found:
        return found
    if torch.Tag.pointwise in getattr(target, "tags", ()) or opname(target) in _POINTWISE:
        return "elementwise"
    return "product" if flops else UNCLASSIFIED


def _times_weight(name: str, inputs: list[Sketch]) -> bool:
    """Whether a product is one of an activation and a weight matrix, such as GPT-2's."""
    last = inputs[-1]
    first = inputs[-2] if len(inputs) > 1 else last
    matrix = last.weight and len(last.shape) == 2 and len(first.shape) >= 2 and not first.weight
    return name in ("matmul", "mm", "addmm") and matrix


def dims_of(
    kind: str, target: Any, inputs: list[Sketch], output: tuple[int, ...]
) -> dict[str, int]:
    """Named sizes of an operator, from its tensors in the order of its arguments."""
    shapes = [sketch.shape for sketch in inputs]
    if kind == "linear" and opname(target) == "linear":
        return _linear(shapes[0], shapes[1][0], shapes[1][-1], len(shapes) > 2)
    if kind == "linear":
        return _linear(shapes[-2], shapes[-1][1], shapes[-1][0], len(shapes) > 2)
    if kind == "matmul" and opname(target) != "einsum" and min(map(len, shapes[-2:])) > 1:
        return _matmul(shapes[-2], shapes[-1], output)
    if kind == "grouped_linear":
        return _grouped(shapes)
    if kind == "attention":
        return _attention(*shapes[:3])
    if kind == "convolution":
        return _convolution(shapes[0], shapes[1], output)
    if kind == "embedding":
        return _rows(output) | {"vocab": shapes[0][0]}
    if kind == "cross_entropy":
        return {"rows": _rows(shapes[0])["rows"], "vocab": shapes[0][-1]}
    of_input = shapes and kind in (*_NORMS, "reduction")
    return _rows(shapes[0] if of_input else output)


def _rows(shape: tuple[int, ...]) -> dict[str, int]:
    return {"rows": math.prod(shape[:-1]), "width": shape[-1] if shape else 1}


def _linear(x: tuple[int, ...], n: int, k: int, bias: bool) -> dict[str, int]:
    return {"m": math.prod(x[:-1]), "k": k, "n": n, "bias": int(bias)}


def _matmul(
    left: tuple[int, ...], right: tuple[int, ...], output: tuple[int, ...]
) -> dict[str, int]:
    m, n = left[-2], right[-1]
    batch = math.prod(output) // (m * n) if m * n else 0
    return {"batch": batch, "m": m, "k": left[-1], "n": n}


def _grouped(shapes: list[tuple[int, ...]]) -> dict[str, int]:
    x, weight = shapes[:2]
    return {"m": math.prod(x[:-1]), "k": x[-1], "n": weight[-1], "groups": weight[0]}


def _attention(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> dict[str, int]:
    heads = (q[-3], k[-3]) if len(q) > 2 else (1, 1)
    apart = {"value_dim": v[-1]} if v[-1] != q[-1] else {}
    return {
        "batch": math.prod(q[:-3]),
        "seq": q[-2],
        "kv_seq": k[-2],
        "heads": heads[0],
        "kv_heads": heads[1],
        "head_dim": q[-1],
        **apart,
    }


def _convolution(
    x: tuple[int, ...], weight: tuple[int, ...], output: tuple[int, ...]
) -> dict[str, int]:
    return {
        "batch": math.prod(x[: -len(weight) + 1]),
        "channels_in": x[-len(weight) + 1],
        "channels_out": output[-len(weight) + 1],
        "kernel": math.prod(weight[2:]),
        "positions": math.prod(output[-len(weight) + 2 :]),
    }
