"""What the layers of transformers keep, to the byte, where it is not what the graph charges, why.

r = b*s rows, a heads of d, f ffn, w the width of a number; the graph sees torch on a CPU.

    GPT-2   its gelu_new is written out in elementary operators: beside the input it keeps
            tanh(..), 1 + tanh(..) and x/2: 3 r f w more. gelu_pytorch_tanh is one kernel: none
    Llama   in 16 bits its RMSNorm rounds the normalised input before the product with the
            weight: r h w instead of r h 4, twice
    BERT    nothing (post-norm: a layer keeps its input for q, k and v, not for a norm)
    eager   in 16 bits the products are in 16 bits too, not in fp32: 3 r a d of q, k, v and, if
            the softmax is, b a s s; Llama's softmax is in fp32 and its rounding is kept beside
    masks   a padding mask of bits becomes one of numbers in every layer, and the attention kernel
            keeps it: b s s w more

Dropout is 0: the graph knows none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from planner.graph import transformer
from planner.spec.huggingface import read_config
from planner.spec.layer import MLP
from planner.spec.model import ModelSpec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.graph.saved import BATCH, SEQ, held, hooked, kept_by, view  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GPT2 = {"n_layer": 1, "n_embd": 32, "n_head": 4, "vocab_size": 97, "n_positions": 64}
LLAMA = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 96,
}
BERT = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_attention_heads": 4,
    "vocab_size": 96,
}


class Case(NamedTuple):
    """A model of transformers, and where its first layer is."""

    model_type: str
    cls: str
    config: dict[str, Any]
    layer: Callable[[Any], Any]


CASES = {
    "gpt2": Case("gpt2", "GPT2LMHeadModel", GPT2, lambda m: m.transformer.h[0]),
    "gpt2-one-kernel": Case(
        "gpt2",
        "GPT2LMHeadModel",
        {**GPT2, "activation_function": "gelu_pytorch_tanh"},
        lambda m: m.transformer.h[0],
    ),
    "llama": Case("llama", "LlamaForCausalLM", LLAMA, lambda m: m.model.layers[0]),
    "bert": Case("bert", "BertForMaskedLM", BERT, lambda m: m.bert.encoder.layer[0]),
}


def more(name: str, spec: ModelSpec, implementation: str, dtype: str) -> int:
    """Bytes that transformers keeps more than the graph charges (see the top of the file)."""
    of, mlp, w = spec.layer.attention, spec.layer.feed_forward, DTYPES[dtype].itemsize
    assert isinstance(mlp, MLP)
    rows, narrower = BATCH * SEQ, 4 - w
    found = 3 * rows * mlp.ffn * w if name == "gpt2" else 0
    if name == "llama":
        found -= 2 * rows * spec.hidden * narrower
    if implementation == "eager" and narrower:
        scores = BATCH * of.heads * SEQ * SEQ
        found -= 3 * rows * of.query_width * narrower
        found += scores * w if name == "llama" else -scores * narrower
    return found


def prepared(case: Case, implementation: str, dtype: str, mask: Any = None) -> tuple[Any, ...]:
    """A layer in training, what its model calls it with beside the stream, and its spec."""
    config = transformers.AutoConfig.for_model(case.model_type, **case.config)
    config.architectures, config.use_cache = [case.cls], False
    for key in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
        setattr(config, key, 0.0)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = getattr(transformers, case.cls)._from_config(
        config, attn_implementation=implementation, dtype=DTYPES[dtype]
    )
    given: list[Any] = []
    layer = case.layer(model.train())
    handle = layer.register_forward_pre_hook(
        lambda _, *called: given.append(called), with_kwargs=True
    )
    model(torch.zeros(BATCH, SEQ, dtype=torch.long), attention_mask=mask)
    handle.remove()
    (_, *others), named = given[0]
    spec = read_config(config.to_dict(), "config.json", case.model_type)
    return layer, others, named, spec


def tensors(*values: Any) -> list[Any]:
    """All tensors in nested arguments."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if torch.is_tensor(leaf)]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_layer_keeps_what_is_charged_and_what_is_explained(
    name: str, dtype: str, implementation: str
) -> None:
    layer, others, named, spec = prepared(CASES[name], implementation, dtype)
    leaf = torch.rand(BATCH, SEQ, spec.hidden, dtype=DTYPES[dtype]).requires_grad_()
    seen = view(dtype, "flash" if implementation == "sdpa" else "math")
    charged = kept_by(transformer.layer_graph(spec, seen))
    given = tensors(others, named)

    def run() -> Any:
        return layer(leaf.clone(), *others, **named)

    expected = charged + more(name, spec, implementation, dtype)
    assert hooked(layer, run, *given) == expected
    assert held(layer, run, leaf, *given) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_padding_mask_is_kept_by_every_layer(dtype: str) -> None:
    mask = torch.ones(BATCH, SEQ, dtype=torch.long)
    mask[0, SEQ // 2 :] = 0
    layer, others, named, spec = prepared(CASES["bert"], "sdpa", dtype, mask)
    leaf = torch.rand(BATCH, SEQ, spec.hidden, dtype=DTYPES[dtype]).requires_grad_()
    masks = tensors(others, named)
    assert [(tuple(each.shape), each.dtype) for each in masks] == [
        ((BATCH, 1, SEQ, SEQ), torch.bool)
    ]
    kept = hooked(layer, lambda: layer(leaf.clone(), *others, **named), *masks)
    charged = kept_by(transformer.layer_graph(spec, view(dtype, "flash")))
    assert kept == charged + BATCH * SEQ * SEQ * DTYPES[dtype].itemsize
