"""Over all ranks the first pieces hold every element once, and their moments are one process's."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor import data
from executor.apply import apply
from executor.parallel import pipeline
from executor.parallel.mesh import Mesh, close_mesh, make_mesh
from executor.parallel.tensor_parallel import divide
from executor.recorder import Recorder, make_clock
from executor.runner import Runner
from executor.states import flat
from executor.states.own import own_range
from executor.states.pieces import Piece, counted, pieces
from executor.transformer.model import meta_model
from planner.spec.plan import Plan
from tests.executor.plans import (
    LEARNING_RATE,
    SEED,
    SEQ_LEN,
    STEPS,
    make_plan,
    trained,
)
from tests.executor.pool import RANKS, TIMEOUT, Pool

Saved = tuple[Piece, dict[str, torch.Tensor]]


def lonely(plan: Plan, rank: int) -> Mesh:
    """A rank's mesh without its groups."""
    pair = (None, None)
    return Mesh(plan.layout, rank, None, None, None, pair, pair, None, None)


def own_plots(plan: Plan, mesh: Mesh) -> Iterator[tuple[flat.Plot, slice, int]]:
    model, layout = meta_model(plan.model, SEQ_LEN), plan.layout
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    pipeline.cut(model, plan, mesh.stages)
    slices = divide(model, mesh.coordinate("tp"), layout.tp, None)
    tied = plan.model.tied_embeddings
    slots = flat.find_slots(model, slices, shapes, tied)
    shards = mesh.shards if layout.zero else 1
    for unit in flat.units(slots, layout.zero, tied):
        plot = flat.place(unit, layout.tp, tied, shards, 8)
        yield plot, own_range(plot.size, mesh.replica % shards, shards), shards


def layouts() -> st.SearchStrategy[dict[str, Any]]:
    chunks = st.sampled_from([("1f1b", 1), ("interleaved", 2), ("zbv", 2)])
    mesh = st.fixed_dictionaries(
        {
            "tp": st.sampled_from([1, 2]),
            "pp": st.sampled_from([1, 2]),
            "zero": st.integers(0, 3),
        }
    )
    shards = st.sampled_from([(1, None), (2, None), (3, None), (2, 1), (4, 2), (6, 3)])
    found = st.builds(
        lambda degrees, chunk, shard: (
            degrees | {"schedule": chunk[0], "vpp": chunk[1], "dp": shard[0], "shard": shard[1]}
        ),
        mesh,
        chunks,
        shards,
    )
    return found.filter(lambda each: each["dp"] * each["tp"] * each["pp"] <= RANKS)


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from(["gpt2", "llama"]), layout=layouts())
def test_first_pieces_hold_every_element_once(name: str, layout: dict[str, Any]) -> None:
    plan = make_plan(name, **layout)
    model = meta_model(plan.model, SEQ_LEN)
    held = {key: torch.zeros(value.shape) for key, value in model.named_parameters()}
    for rank in range(plan.layout.devices):
        mesh = lonely(plan, rank)
        for plot, own, shards in own_plots(plan, mesh):
            found = list(pieces(plot, own, mesh, shards))
            for piece in (piece for piece in found if piece.first):
                add(held[piece.slot.name], piece)
            regions = counted(plot, own, mesh, shards)
            inside = {at for region in regions for at in range(region.start, region.stop)}
            for piece in found:
                start = own.start + piece.at
                covered = set(range(start, start + piece.stop - piece.start)) <= inside
                assert covered == piece.first
    assert all((count == 1).all() for count in held.values())


def add(count: torch.Tensor, piece: Piece) -> None:
    part = piece.slot.cut(count)
    mask = torch.zeros(part.numel())
    mask[piece.start : piece.stop] = 1
    part += mask.view(part.shape)


def saved(rank: int, plan: Plan) -> list[Saved] | None:
    mesh = make_mesh(plan.layout, rank, "gloo", TIMEOUT)
    if mesh is None:
        return None
    cpu = torch.device("cpu")
    share = apply(plan, mesh, cpu, SEED, LEARNING_RATE)
    runner = Runner(plan, mesh, share, cpu)
    for step in range(STEPS):
        batch = data.microbatches(plan, mesh.place, SEED, step, cpu)
        runner.step(batch, Recorder(make_clock(cpu), lambda doing: None))
    close_mesh(mesh)
    assert share.updater.steps == STEPS
    return list(states(share.updater.owned()))


def states(owned: Any) -> Iterator[Saved]:
    for each in owned:
        names = ("weight", "exp_avg", "exp_avg_sq")
        yield each.piece, {name: getattr(each, name).clone() for name in names}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("gpt2", {"dp": 2, "zero": 1, "pp": 2}),
        ("llama", {"dp": 2, "tp": 2, "zero": 3}),
    ],
)
def test_moments_are_those_of_one_process(pool: Pool, name: str, layout: dict[str, Any]) -> None:
    plan = make_plan(name, micro_batch=2, **layout)
    _, _, model, optimizer = trained(name)
    for result in pool.run(saved, plan):
        for piece, tensors in result or ():
            parameter = dict(model.named_parameters())[piece.slot.name]
            expected = {"weight": parameter.detach(), **optimizer.state[parameter]}
            for key, value in tensors.items():
                scale = max(float(expected[key].abs().max()), scale_of(optimizer, key))
                assert (value - piece.cut(expected[key])).abs().max() <= 1e-12 * scale, key


def scale_of(optimizer: torch.optim.AdamW, key: str) -> float:
    """Where a moment is zero but for rounding (a key's bias), the others' scale counts."""
    found = (state[key] for state in optimizer.state.values() if key in state)
    return max((float(value.abs().max()) for value in found), default=0.0)
