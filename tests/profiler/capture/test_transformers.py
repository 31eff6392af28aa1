"""Oracle: transformers' models with random weights, run for real under FlopCounterMode.

The capture sees no data and no storage; the parameters and the FLOPs of forward and backward
must equal what torch counts while it computes (attention by the usual formula, because the
counter knows no CPU attention kernel).
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from planner.graph import counts, document, transformer  # noqa: E402
from planner.graph.view import RankView  # noqa: E402
from planner.spec import catalog  # noqa: E402
from planner.spec.documents import InputError, load  # noqa: E402
from planner.spec.graph import GraphDocument  # noqa: E402
from planner.spec.huggingface import read_config  # noqa: E402
from profiler.capture import attention, trace  # noqa: E402
from profiler.capture.document import capture  # noqa: E402
from tests.graph.families import FAMILIES  # noqa: E402

BATCH, SEQ = 2, 16
COMMON = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 64,
}


def tokens() -> Any:
    return torch.randint(3, 90, (BATCH, SEQ))


def language_model(config: Any, **inputs: Any) -> tuple[Any, dict[str, Any]]:
    """The model of a config, in training with labels; no cache, as in training."""
    config.use_cache = False
    cls = transformers.AutoModelForCausalLM
    if config.is_encoder_decoder:
        cls = transformers.AutoModelForSeq2SeqLM
    return cls.from_config(config), {"input_ids": tokens(), "labels": tokens(), **inputs}


def gpt2() -> tuple[Any, dict[str, Any]]:
    sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return language_model(transformers.GPT2Config(**sizes, **drops, **COMMON))


def llama(**changes: Any) -> tuple[Any, dict[str, Any]]:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return language_model(transformers.LlamaConfig(**(sizes | COMMON | changes)))


def bert() -> tuple[Any, dict[str, Any]]:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    config = transformers.BertConfig(**sizes, **NO_DROPOUT, **COMMON)
    mask = torch.ones(BATCH, SEQ, dtype=torch.long)
    inputs = {"input_ids": tokens(), "labels": tokens(), "attention_mask": mask}
    return transformers.BertForMaskedLM(config), inputs


def t5() -> tuple[Any, dict[str, Any]]:
    sizes = {"d_model": 32, "d_kv": 6, "d_ff": 64, "num_layers": 3, "num_heads": 4}
    config = transformers.T5Config(**sizes, dropout_rate=0.0, decoder_start_token_id=0, **COMMON)
    return language_model(config)


def marian() -> tuple[Any, dict[str, Any]]:
    sizes = {"d_model": 32, "encoder_layers": 3, "decoder_layers": 2}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    widths = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64}
    config = transformers.MarianConfig(
        **sizes, **heads, **widths, dropout=0.0, decoder_start_token_id=0, **COMMON
    )
    return language_model(config)


def vit() -> tuple[Any, dict[str, Any]]:
    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=16,
        patch_size=4,
        num_labels=5,
    )
    inputs = {"pixel_values": torch.randn(BATCH, 3, 16, 16), "labels": torch.tensor([0, 3])}
    return transformers.ViTForImageClassification(config), inputs


def mixtral() -> tuple[Any, dict[str, Any]]:
    config = transformers.MixtralConfig(
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        **COMMON,
    )
    return language_model(config)


MODELS = {
    "gpt2": (gpt2, {"transformer.h.*": 3}),
    "llama": (llama, {"model.layers.*": 3}),
    "bert": (bert, {"bert.encoder.layer.*": 3}),
    "t5": (t5, {"encoder.block.*": 3, "decoder.block.*": 3}),
    "marian": (marian, {"model.encoder.layers.*": 3, "model.decoder.layers.*": 2}),
    "vit": (vit, {"vit.layers.*": 3}),
    "mixtral": (mixtral, {"model.layers.*": 3}),
}


def built(name: str) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    return MODELS[name][0]()


@cache
def captured(name: str) -> GraphDocument:
    with trace.fake():
        model, inputs = MODELS[name][0]()
    return capture(model, kwargs=inputs)


def grouped_forward(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * weight[-1]


def grouped_backward(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * grouped_forward(x, weight)


def formulas() -> dict[Any, Any]:
    known = {**attention.FORMULAS, torch.ops.aten._grouped_mm: grouped_forward}
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        known[torch.ops.transformers.grouped_mm_fallback] = grouped_forward
        known[torch.ops.transformers.grouped_mm_fallback_backward] = grouped_backward
    return known


def counted(model: Any, inputs: dict[str, Any]) -> tuple[int, int]:
    with FlopCounterMode(display=False, custom_mapping=formulas()) as forward:
        loss = model(**inputs).loss
    with FlopCounterMode(display=False, custom_mapping=formulas()) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_flops_equal_torch(name: str) -> None:
    model, inputs = built(name)
    graph = captured(name)
    assert graph.totals.parameters == sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert graph.totals.frozen_parameters == frozen
    forward, backward = counted(model, inputs)
    assert graph.totals.forward_flops == forward
    assert graph.totals.backward_flops == backward


@pytest.mark.parametrize("name", MODELS)
def test_the_repeated_layers_are_found_and_nothing_is_unknown(name: str) -> None:
    graph = captured(name)
    found: dict[str, int] = {}
    for layer in graph.layers:
        found[layer.container] = found.get(layer.container, 0) + layer.count
    assert found == MODELS[name][1]
    assert graph.unclassified == ()
    assert graph.origin is not None
    assert graph.origin.backward_from == "loss"


@pytest.mark.parametrize("name", ["gpt2", "bert", "marian", "vit"])
def test_kept_bytes_are_what_autograd_keeps(name: str) -> None:
    model, inputs = built(name)
    assert captured(name).totals.saved_bytes == pytest.approx(kept(model, inputs), rel=0.005)


@pytest.mark.parametrize("name", ["llama", "t5", "mixtral"])
def test_masks_and_repeated_keys_that_transformers_writes_out_while_traced(name: str) -> None:
    model, inputs = built(name)
    real = kept(model, inputs)
    assert real < captured(name).totals.saved_bytes < 1.06 * real


def kept(model: Any, inputs: dict[str, Any]) -> int:
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    found: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs)
    return sum(t.untyped_storage().nbytes() for key, t in found.items() if key not in own)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "vit", "marian", "mixtral"])
def test_the_graph_of_the_config_agrees(name: str) -> None:
    """Two ways to one truth: our reading of the config.json, and the traced module."""
    with trace.fake():
        model, _ = MODELS[name][0]()
    data = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    spec = read_config(data, "config.json", name)
    graph = captured(name)
    assert graph.totals.parameters == counts.parameters(spec)
    seq = spec.max_positions if name == "vit" else SEQ
    assert graph.totals.forward_flops == counts.forward_flops(spec, BATCH, seq)
    shape = transformer.model_graph(spec, RankView(BATCH, seq, flash=True))
    planned = document.from_graph(shape, name)
    assert planned.totals.parameters == graph.totals.parameters
    assert {layer.count for layer in planned.layers} <= {1, 2, 3}


def test_a_captured_graph_is_analysed_as_one_of_a_spec() -> None:
    graph = captured("llama")
    shape = document.to_graph(graph)
    assert nx.is_directed_acyclic_graph(shape)
    found = transformer.operators(shape)
    assert sum(operator.forward_flops for operator in found) == graph.totals.forward_flops
    assert sum(operator.backward_flops for operator in found) == graph.totals.backward_flops
    again = document.from_graph(shape, graph.name)
    assert [(x.container, x.count) for x in again.layers] == [("model.layers.*", 3)]
    assert again.totals == graph.totals


@pytest.mark.slow
@pytest.mark.parametrize("model_type", FAMILIES)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_models_equal_torch(model_type: str, data: st.DataObject) -> None:
    name, kwargs = data.draw(FAMILIES[model_type])
    config = transformers.AutoConfig.for_model(model_type, **kwargs)
    config.pad_token_id, config.decoder_start_token_id, config.use_cache = 0, 0, False
    # transformers looks for end-of-text tokens here, so the sizes depend on data
    assume(not (config.is_encoder_decoder and "SequenceClassification" in name))
    model = getattr(transformers, name)._from_config(config).eval()
    inputs = inputs_of(model)
    assume(runs(model, inputs))
    graph = capture(model, kwargs=inputs)
    assert graph.totals.parameters == sum(p.numel() for p in model.parameters())
    assert graph.unclassified == ()
    with FlopCounterMode(display=False, custom_mapping=formulas()) as forward:
        outputs = [t for t in trace.tensors(model(**inputs)) if t.requires_grad]
    assert graph.totals.forward_flops == forward.get_total_flops()
    with FlopCounterMode(display=False, custom_mapping=formulas()) as backward:
        torch.stack([output.float().sum() for output in outputs]).sum().backward()
    # with wider keys than values torch's CPU keeps the scores, and a flash kernel is assumed
    assert model_type == "deepseek_v3" or (
        graph.totals.backward_flops == backward.get_total_flops()
    )


def runs(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether torch itself can run what was drawn (grouped products want aligned widths)."""
    try:
        model(**inputs)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def test_a_class_that_looks_for_tokens_is_refused() -> None:
    with trace.fake():
        config = transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        config.decoder_start_token_id = 0
        model = transformers.T5ForSequenceClassification(config)
        inputs = {"input_ids": tokens()}
    with pytest.raises(InputError, match=r"unique_consecutive.* depends on the values"):
        capture(model, kwargs=inputs)


def inputs_of(model: Any) -> dict[str, Any]:
    """Example inputs of a model by what its class takes."""
    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.randn(2, config.num_channels, height, width)}
    if model.main_input_name == "input_features":
        return {
            "input_features": torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions),
            "decoder_input_ids": torch.zeros(2, 5, dtype=torch.long),
        }
    ids = torch.zeros(2, 5, dtype=torch.long)
    decodes = config.is_encoder_decoder and hasattr(model, "get_decoder")
    return {"input_ids": ids} | ({"decoder_input_ids": ids} if decodes else {})


LLAMA_70B = """
import torch
import transformers

def build():
    config = transformers.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072, use_cache=False,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tokens = torch.zeros(1, 8192, dtype=torch.long)
    return model, {"input_ids": tokens, "labels": tokens}
"""
MEASURED = """
import resource, sys, time
start = time.perf_counter()
from planner.spec.documents import save
from profiler.capture.document import capture_entry
save(capture_entry(sys.argv[1]), sys.argv[2])
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_llama_70b_in_a_minute_and_two_gigabytes(tmp_path: Path) -> None:
    entry = tmp_path / "llama.py"
    entry.write_text(LLAMA_70B)
    command = [sys.executable, "-c", MEASURED, f"{entry}:build", str(tmp_path / "graph.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak_bytes = map(float, done.stdout.split()[-2:])
    assert seconds < 60
    assert peak_bytes < 2e9
    graph = load(GraphDocument, tmp_path / "graph.json")
    assert graph.totals.parameters == 70_553_706_496
    assert [(layer.container, layer.count) for layer in graph.layers] == [("model.layers.*", 80)]
    spec = catalog.find_model("llama3.1-70b")
    assert graph.totals.forward_flops == counts.forward_flops(spec, 1, 8192)
    assert graph.totals.backward_flops == counts.backward_flops(spec, 1, 8192)
    assert (tmp_path / "graph.json").stat().st_size < 200_000
