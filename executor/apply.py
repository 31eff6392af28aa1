"""Apply: one function turns the plain model into a rank's share of a plan, in this order.

    1  the whole model on the meta device: shapes, no memory; or a user's module (executor.adapted)
    2  cut to the rank's stages                     (executor.parallel: pipeline)
    3  cut the sequences over cp                    (context_parallel)
    4  divide over tp, experts over ep and etp      (tensor_parallel, expert_parallel)
    5  recompute where layers choose to             (recompute)
    6  split the backward where the schedule does   (split_backward)
    7  flat buffers with initial values             (executor.states: flat), whole (replicated), in
                                                    shards that the modules gather and scatter
                                                    (sharded) or by server (served)
    8  gradient reduction and optimiser             (data_parallel)

The order matters: cutting first keeps later steps small, dividing before recomputing puts the
collectives inside what is recomputed, and memory is taken only for what is left.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from executor.adapted import division as adapted
from executor.adapted.model import adapt
from executor.formats import gradient_dtype, weight_dtype
from executor.parallel import context_parallel, expert_parallel, pipeline, tensor_parallel
from executor.parallel.mesh import Mesh
from executor.parallel.recompute import recompute
from executor.parallel.split_backward import Deferral, split
from executor.sequence_cut import SequenceCut, cut_of
from executor.states import flat
from executor.states.data_parallel import Unit, Updater
from executor.states.replicated import Replicated
from executor.states.served import Served, assign
from executor.states.sharded import Sharded, watch
from executor.transformer.initial import alike_value, full_value
from executor.transformer.model import Part, Transformer, meta_model
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
    module: nn.Module | None = None,
) -> Share:
    """Build the rank's share of a plan, with initial values. The plan is known to be runnable.

    seed: None gives all weights one value, which costs no time (executor.alone.emulation).
    module: a user's own, to be divided instead of the model that the plan describes.
    """
    layout = plan.layout
    cut = cut_of(layout, plan.workload.seq_len, mesh.coordinate("cp"))
    model = meta_model(plan.model, cut.tokens) if module is None else adapt(module, plan)
    given = alike_value if seed is None else functools.partial(full_value, seed=seed)
    value = given if module is None else _own_values(model)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    pipeline.cut(model, plan, mesh.stages)
    context_parallel.divide(model, cut, layout.cp_style, mesh.cp)
    place = mesh.coordinate("tp"), layout.tp, mesh.tp
    slices: dict[str, flat.AnySlice] = {
        **tensor_parallel.divide(model, *place),
        **adapted.divide(model, *place),
    }
    if mesh.ep is not None and mesh.etp is not None:
        slices |= expert_parallel.divide(model, mesh.ep, mesh.etp)
    recompute(model, [choice for stage in mesh.stages for choice in plan.stages[stage].layers])
    deferral = split(model) if layout.schedule in SPLIT else None
    _materialise_tables(model, cut, device, weight_dtype(plan.workload.dtype))
    slots = flat.find_slots(model, slices, shapes, plan.model.tied_embeddings)
    parts = {stage: pipeline.part(model, plan, stage) for stage in mesh.stages}
    units = _units(plan, mesh, model, slots, device, value)
    if sharded := [unit for unit in units if isinstance(unit, Sharded)]:
        for part in parts.values():
            watch(part, sharded, deferral)
    return Share(model, parts, Updater(units, mesh, learning_rate, clip_norm), deferral)


def _own_values(model: Transformer) -> flat.Value:
    """The values that a user's module has."""
    values = {name: value.detach() for name, value in model.named_parameters()}
    return lambda name, shape: values[name]


def _units(
    plan: Plan,
    mesh: Mesh,
    model: Transformer,
    slots: list[flat.Slot],
    device: torch.device,
    value: flat.Value,
) -> Sequence[Unit]:
    layout, work, tied = plan.layout, plan.workload, plan.model.tied_embeddings
    dtypes = weight_dtype(work.dtype), gradient_dtype(work.dtype, plan.runtime)
    size = dtypes[0].itemsize
    if layout.sync == "parameter_server" and mesh.replicas > 1:
        groups = assign(slots, mesh.replicas)
        plots = [flat.place(each, layout.tp, tied, 1, size) for each in groups]
        return [Served(model, plots, mesh, device, dtypes, value)]
    made: list[Unit] = []
    for each in flat.units(slots, layout.zero, tied):
        experts = any(slot.expert for slot in each)
        shards = mesh.sharers(experts).shard.size
        zero, tp = layout.zero if shards > 1 else 0, 1 if experts else layout.tp
        multiple = shards if zero else 1
        plot = flat.place(each, tp, tied, multiple, size, alike=zero > 1)
        kind = Replicated if zero < 2 else Sharded
        made.append(kind(model, plot, mesh, zero, device, dtypes, value))
    return made


def _materialise_tables(
    model: Transformer, cut: SequenceCut, device: torch.device, dtype: torch.dtype
) -> None:
    if model.rotary is not None:
        model.rotary.to(dtype).to_empty(device=device)
        model.rotary.fill(cut)
