"""Apply: one function turns the plain model into a rank's share of a plan, in this order.

    1  the whole model on the meta device: shapes, no memory
    2  cut to the rank's stages                     (executor.pipeline)
    3  cut the sequences over cp                    (executor.context_parallel)
    4  divide over tp                               (executor.tensor_parallel)
    5  recompute where layers choose to             (executor.recompute)
    6  split the backward where the schedule does   (executor.split_backward)
    7  flat buffers, then initial values            (executor.flat, executor.initial)
    8  gradient reduction and optimiser             (executor.data_parallel)

The order matters: cutting first keeps later steps small, dividing before recomputing puts the
collectives inside what is recomputed, and memory is taken only for what is left.
"""

import functools
from dataclasses import dataclass

import torch

from executor import context_parallel, flat, pipeline, tensor_parallel
from executor.data_parallel import Updater
from executor.formats import gradient_dtype, weight_dtype
from executor.initial import STANDARD_DEVIATION, full_value
from executor.mesh import Mesh
from executor.model import Part, Transformer, meta_model
from executor.recompute import recompute
from executor.sequence_cut import SequenceCut, cut_of
from executor.split_backward import Deferral, split
from planner.schedule.orders import SPLIT
from planner.spec.plan import Plan


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank holds of a plan: its part of the model and the owner of its weights.

    parts: the stages of the rank, by number. deferral: where the schedule splits the backward.
    """

    model: Transformer
    parts: dict[int, Part]
    flat: flat.Flat
    updater: Updater
    deferral: Deferral | None


def apply(
    plan: Plan,
    mesh: Mesh,
    device: torch.device,
    seed: int | None,
    learning_rate: float,
    clip_norm: float | None = None,
) -> Share:
    """Build the rank's share of a plan, with initial values. The plan is known to be runnable.

    seed: None gives values that no other rank shares, drawn where they lie (executor.emulation).
    """
    layout, dtype = plan.layout, weight_dtype(plan.workload.dtype)
    cut = cut_of(layout, plan.workload.seq_len, mesh.coordinate("cp"))
    model = meta_model(plan.model, cut.tokens)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    pipeline.cut(model, plan, mesh.stages)
    context_parallel.divide(model, cut, layout.cp_style, mesh.cp)
    slices = tensor_parallel.divide(model, mesh.coordinate("tp"), layout.tp, mesh.tp)
    recompute(model, [choice for stage in mesh.stages for choice in plan.stages[stage].layers])
    deferral = split(model) if layout.schedule in SPLIT else None
    plot = _plot(plan, model, slices, shapes)
    _materialise_tables(model, cut, device, dtype)
    buffers = flat.flatten(
        model, plot, device, dtype, gradient_dtype(plan.workload.dtype, plan.runtime)
    )
    if seed is None:
        buffers.weights.normal_(std=STANDARD_DEVIATION)
    else:
        flat.fill(buffers, functools.partial(full_value, seed=seed))
    parts = {stage: pipeline.part(model, plan, stage) for stage in mesh.stages}
    updater = Updater(buffers, mesh, layout.zero, learning_rate, clip_norm)
    return Share(model, parts, buffers, updater, deferral)


def _plot(
    plan: Plan,
    model: Transformer,
    slices: dict[str, tensor_parallel.Slice],
    shapes: dict[str, tuple[int, ...]],
) -> flat.Plot:
    layout, tied = plan.layout, plan.model.tied_embeddings
    slots = flat.find_slots(model, slices, shapes, tied)
    size = weight_dtype(plan.workload.dtype).itemsize
    return flat.place(slots, layout.tp, tied, layout.dp * layout.cp if layout.zero else 1, size)


def _materialise_tables(
    model: Transformer, cut: SequenceCut, device: torch.device, dtype: torch.dtype
) -> None:
    if model.rotary is not None:
        model.rotary.to(dtype).to_empty(device=device)
        model.rotary.fill(cut)
