"""Apply: one function turns the plain model into a rank's share of a plan, in this order.

    1  the whole model on the meta device: shapes, no memory
    2  cut to the rank's stages                     (executor.pipeline)
    3  cut the sequences over cp                    (executor.context_parallel)
    4  divide over tp                               (executor.tensor_parallel)
    5  recompute where layers choose to             (executor.recompute)
    6  split the backward where the schedule does   (executor.split_backward)
    7  flat buffers with initial values             (executor.flat, executor.initial), whole
                                                    (executor.replicated) or in shards that the
                                                    modules gather and scatter (executor.sharded)
    8  gradient reduction and optimiser             (executor.data_parallel)

The order matters: cutting first keeps later steps small, dividing before recomputing puts the
collectives inside what is recomputed, and memory is taken only for what is left.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from executor import context_parallel, flat, pipeline, tensor_parallel
from executor.data_parallel import Updater
from executor.formats import gradient_dtype, weight_dtype
from executor.initial import alike_value, full_value
from executor.mesh import Mesh
from executor.model import Part, Transformer, meta_model
from executor.recompute import recompute
from executor.replicated import Replicated
from executor.sequence_cut import SequenceCut, cut_of
from executor.sharded import Sharded, watch
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

    seed: None gives all weights one value, which costs no time (executor.emulation).
    """
    layout = plan.layout
    cut = cut_of(layout, plan.workload.seq_len, mesh.coordinate("cp"))
    model = meta_model(plan.model, cut.tokens)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    pipeline.cut(model, plan, mesh.stages)
    context_parallel.divide(model, cut, layout.cp_style, mesh.cp)
    slices = tensor_parallel.divide(model, mesh.coordinate("tp"), layout.tp, mesh.tp)
    recompute(model, [choice for stage in mesh.stages for choice in plan.stages[stage].layers])
    deferral = split(model) if layout.schedule in SPLIT else None
    _materialise_tables(model, cut, device, weight_dtype(plan.workload.dtype))
    slots = flat.find_slots(model, slices, shapes, plan.model.tied_embeddings)
    parts = {stage: pipeline.part(model, plan, stage) for stage in mesh.stages}
    value = alike_value if seed is None else functools.partial(full_value, seed=seed)
    units = _units(plan, mesh, model, slots, device, value)
    if sharded := [unit for unit in units if isinstance(unit, Sharded)]:
        for part in parts.values():
            watch(part, sharded)
    return Share(model, parts, Updater(units, mesh, learning_rate, clip_norm), deferral)


def _units(
    plan: Plan,
    mesh: Mesh,
    model: Transformer,
    slots: list[flat.Slot],
    device: torch.device,
    value: flat.Value,
) -> Sequence[Replicated | Sharded]:
    layout, work, tied = plan.layout, plan.workload, plan.model.tied_embeddings
    dtypes = weight_dtype(work.dtype), gradient_dtype(work.dtype, plan.runtime)
    zero = layout.zero if mesh.shards > 1 else 0
    shards, size = mesh.shards if zero else 1, dtypes[0].itemsize
    plots = [
        flat.place(each, layout.tp, tied, shards, size) for each in flat.units(slots, zero, tied)
    ]
    rest = mesh, zero, device, dtypes, value
    if zero < 2:
        return [Replicated(model, plot, *rest) for plot in plots]
    return [Sharded(model, plot, *rest) for plot in plots]


def _materialise_tables(
    model: Transformer, cut: SequenceCut, device: torch.device, dtype: torch.dtype
) -> None:
    if model.rotary is not None:
        model.rotary.to(dtype).to_empty(device=device)
        model.rotary.fill(cut)
