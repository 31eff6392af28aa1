from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.parallel import pipeline
from executor.parallel.tensor_parallel import divide
from executor.states import flat
from executor.transformer.model import TIED, Transformer, meta_model
from tests.executor.plans import SEQ_LEN, SPECS, make_plan


def plot_of(name: str, tp: int, multiple: int, **layout: Any) -> tuple[flat.Plot, Transformer]:
    spec = SPECS[name]
    model = meta_model(spec, SEQ_LEN)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    if layout:
        pipeline.cut(model, make_plan(name, pp=2), [layout["stage"]])
    slices = divide(model, tp - 1, tp, None)
    slots = flat.find_slots(model, slices, shapes, spec.tied_embeddings)
    return flat.place(slots, tp, spec.tied_embeddings, multiple, 4), model


@settings(deadline=None, max_examples=20)
@given(
    name=st.sampled_from(sorted(SPECS)),
    tp=st.sampled_from([1, 2, 4]),
    multiple=st.integers(1, 7),
)
def test_slots_neither_overlap_nor_leave_their_region(name: str, tp: int, multiple: int) -> None:
    plot, _ = plot_of(name, tp, multiple)
    assert plot.size % multiple == 0
    assert plot.size >= plot.used_end
    end = 0
    for slot in plot.slots:
        assert slot.start >= end
        assert slot.start % 16 == 0
        end = slot.stop
        replicated = tp > 1 and slot.part is None
        assert (slot.stop <= plot.replicated_end) == replicated
        tied = SPECS[name].tied_embeddings and slot.name == TIED[0]
        assert (slot.start >= plot.tied_start) == tied
    held = sum(slot.stop - slot.start for slot in plot.slots)
    assert held + sum(gap.stop - gap.start for gap in plot.gaps()) == plot.size


@pytest.mark.parametrize("stage", [0, 1])
def test_tied_matrix_has_the_embedding_s_name_on_both_stages(stage: int) -> None:
    plot, _ = plot_of("gpt2", 1, 1, stage=stage)
    assert [slot.names for slot in plot.slots if slot.name == TIED[0]] == [(TIED[stage],)]


@pytest.mark.parametrize("name", SPECS)
def test_parameters_and_gradients_are_views(name: str) -> None:
    plot, model = plot_of(name, 1, 1)
    cpu = torch.device("cpu")
    buffers = flat.flatten(model, plot, cpu, torch.float32, torch.float32)
    flat.fill(plot, buffers.weights, lambda key, shape: torch.ones(shape))
    for parameter in model.parameters():
        assert parameter.min() == parameter.max() == 1.0
        parameter.grad.fill_(2.0)
    count = sum(slot.stop - slot.start for slot in plot.slots)
    assert buffers.weights.sum() == count
    assert buffers.gradients.sum() == 2 * count


def test_16_bit_gradients_accumulate_in_fp32() -> None:
    """256 + 1 is 256 in bf16: only the wider buffer can count it."""
    model = torch.nn.Linear(1, 1, bias=False, device="meta")
    slots = [flat.Slot("weight", ("weight",), (1, 1), (1, 1), None)]
    plot = flat.place(slots, 1, False, 1, 2)
    buffers = flat.flatten(model, plot, torch.device("cpu"), torch.bfloat16, torch.float32)
    for value in (256.0, 1.0):
        model(torch.tensor([[value]], dtype=torch.bfloat16)).sum().backward()
    assert buffers.gradients[0] == 257.0
    assert model.weight.grad is None
