"""Oracle: what transformers' own models compute is what FlopCounterMode counts of them.

Small drawn models are trained for one step on the CPU: forward with labels, then backward. Their
attention is eager, so the counter sees its products; our view without flash has the same: scores
and weighting once forward and twice backward. Experts run one after the other (experts_
implementation eager): the products of all of them together are those of rows * per_token tokens.

Where we count fewer: eager attention multiplies the whole square and masks it afterwards, so a
model with windows is compared twice: without them it is equal, and with them it is less by
6 * batch * heads * seq * (keys - window) * (head_dim + value_dim) for each windowed layer.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.graph import counts
from planner.graph.view import RankView
from planner.spec.huggingface import read_config
from planner.spec.model import ModelSpec
from tests.graph.families import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

BATCH, SEQ, SOURCE = 2, 7, 5
DRAWN = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def built(model_type: str, name: str, kwargs: dict[str, Any]) -> Any:
    made = transformers.AutoConfig.for_model(model_type, **kwargs)
    made.architectures = [name]
    cls = getattr(transformers, name)
    return cls._from_config(made, attn_implementation="eager", experts_implementation="eager")


def inputs(spec: ModelSpec, made: Any, name: str) -> dict[str, Any]:
    tokens = torch.full((BATCH, SEQ), 3)
    given: dict[str, Any] = {"input_ids": tokens}
    if spec.family == "vit":
        sides = made.image_size if isinstance(made.image_size, list) else [made.image_size] * 2
        given = {"pixel_values": torch.randn(BATCH, made.num_channels, *sides)}
    if spec.encoder is not None:
        source = torch.full((BATCH, source_of(spec)), 3)
        source[:, -1] = tokens[:, -1] = made.eos_token_id
        given = {"input_ids": source, "decoder_input_ids": tokens}
    if spec.family == "whisper":
        frames = 2 * made.max_source_positions
        sound = torch.randn(BATCH, made.num_mel_bins, frames)
        given = {"input_features": sound, "decoder_input_ids": tokens}
    return given | labels(spec, name, tokens)


def labels(spec: ModelSpec, name: str, tokens: Any) -> dict[str, Any]:
    one = torch.zeros(BATCH, dtype=torch.long)
    if name.endswith("QuestionAnswering"):
        return {"start_positions": one, "end_positions": one}
    if spec.head.kind == "sequence_classification":
        return {"labels": one}
    if spec.head.kind == "none":
        return {}
    return {"labels": torch.zeros_like(tokens)}


def view(spec: ModelSpec, made: Any) -> RankView:
    if spec.family == "vit":
        return RankView(BATCH, spec.max_positions, flash=False)
    source = made.max_source_positions if spec.family == "whisper" else source_of(spec)
    return RankView(BATCH, SEQ, flash=False, source=source if spec.encoder else None)


def source_of(spec: ModelSpec) -> int:
    """Tokens of the source; T5 and BART look for its end among the decoder's to classify it."""
    return SEQ if spec.head.kind == "sequence_classification" else SOURCE


def measured(model: Any, given: dict[str, Any]) -> tuple[int, int]:
    model.train()
    with FlopCounterMode(display=False) as forward:
        out = model(**given)
        loss = out.loss if given.keys() & {"labels", "start_positions"} else bare(out)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def bare(out: Any) -> Any:
    pooled = getattr(out, "pooler_output", None)
    return out.last_hidden_state.sum() + (0 if pooled is None else pooled.sum())


def ours(spec: ModelSpec, seen: RankView) -> tuple[int, int]:
    forward = counts.total(spec, seen, lambda operator: operator.forward_flops)
    return forward, counts.total(spec, seen, lambda operator: operator.backward_flops)


def without_windows(spec: ModelSpec) -> ModelSpec:
    stacks = [
        stack.replace(
            kinds=tuple(
                kind.replace(attention=kind.attention.replace(window=None)) for kind in stack.kinds
            )
        )
        for stack in spec.stacks
    ]
    return spec.replace(stacks=tuple(stacks))


def spared(spec: ModelSpec) -> int:
    """Products of the whole square that windows leave out, forward; the backward has twice."""
    return sum(
        2 * BATCH * a.heads * SEQ * max(0, SEQ - (a.window or SEQ)) * (a.head_dim + a.value_head)
        for a in (spec.main.kinds[kind].attention for kind in spec.main.order)
    )


def check(model_type: str, name: str, kwargs: dict[str, Any]) -> None:
    model = built(model_type, name, kwargs | {"pad_token_id": 1})
    spec = read_config(model.config.to_dict(), "config.json", "drawn")
    seen = view(spec, model.config)
    forward, backward = measured(model, inputs(spec, model.config, name))
    assert ours(without_windows(spec), seen) == (forward, backward)
    assert ours(spec, seen) == (forward - spared(spec), backward - 2 * spared(spec))


@pytest.mark.parametrize("model_type", FAMILIES)
@given(data=st.data())
@settings(max_examples=8, **DRAWN)
def test_flops_equal_the_counter(model_type: str, data: st.DataObject) -> None:
    check(model_type, *data.draw(FAMILIES[model_type]))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", FAMILIES)
@given(data=st.data())
@settings(max_examples=200, **DRAWN)
def test_flops_of_many_equal_the_counter(model_type: str, data: st.DataObject) -> None:
    check(model_type, *data.draw(FAMILIES[model_type]))


def test_a_window_spares_what_eager_attention_computes() -> None:
    shape = {
        "num_hidden_layers": 2,
        "hidden_size": 12,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 5,
        "vocab_size": 9,
        "sliding_window": 3,
    }
    check("mistral", "MistralForCausalLM", shape)
    spec = read_config({"model_type": "mistral", **shape}, "config.json", "windows")
    assert spared(spec) == 2 * 2 * BATCH * 2 * SEQ * (SEQ - 3) * 12
