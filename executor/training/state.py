"""State: what a rank must keep of a training, saved and read by torch.distributed.checkpoint.

A training is its step and, for every parameter, its weight (the fp32 master of a 16-bit one) and
AdamW's two moments:

    weight/NAME   exp_avg/NAME   exp_avg_sq/NAME        each of the whole parameter's shape

Ranks write the boxes (executor.states.boxes) of the pieces that they are the first to hold, so
every element is written once; they read the boxes of all their pieces, whoever wrote them, which is
all that resharding is: a checkpoint knows no plan.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import checkpoint
from torch.distributed.checkpoint import (
    FileSystemReader,
    FileSystemWriter,
    LoadPlan,
    LoadPlanner,
    Metadata,
    ReadItem,
    SavePlan,
    SavePlanner,
)
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from executor.parallel.mesh import Mesh
from executor.states.boxes import Sizes, of_piece
from executor.states.data_parallel import Updater

KINDS = ("weight", "exp_avg", "exp_avg_sq")
Key = tuple[str, Sizes]
"""A tensor's name in the checkpoint and the offsets of one of its boxes."""


def save(updater: Updater, mesh: Mesh, folder: Path) -> None:
    """Write the state of all ranks of a mesh to an empty folder.

    Collective. Raises CheckpointException on every rank when any of them fails.
    """
    with _maybe_alone():
        checkpoint.save(
            {},
            storage_writer=FileSystemWriter(folder),
            planner=_Saving(updater),
            process_group=mesh.everyone,
            no_dist=mesh.everyone is None,
        )


def load(updater: Updater, mesh: Mesh, folder: Path) -> None:
    """Read the state of all ranks of a mesh and give the weights to whoever shares them.

    Collective. Raises CheckpointException on every rank when any of them fails.
    """
    with _maybe_alone():
        checkpoint.load(
            {},
            storage_reader=FileSystemReader(folder),
            planner=_Loading(updater),
            process_group=mesh.everyone,
            no_dist=mesh.everyone is None,
        )
    updater.publish()


@contextlib.contextmanager
def _maybe_alone() -> Iterator[None]:
    """One rank needs no job, and torch warns that there is none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _tensors(updater: Updater, first_only: bool) -> Iterator[tuple[Key, Sizes, Tensor]]:
    """Every box of the rank's pieces: its key, the whole parameter's shape, and its elements."""
    for owned in updater.owned():
        if first_only and not owned.piece.first:
            continue
        for box in of_piece(owned.piece):
            for kind in KINDS:
                values: Tensor = getattr(owned, kind)[box.start : box.stop].view(box.sizes)
                key = (f"{kind}/{owned.piece.slot.name}", box.offsets)
                yield key, owned.piece.slot.full_shape, values


class _Saving(SavePlanner):
    """Plans which rank writes what: its own boxes, without asking the others."""

    def __init__(self, updater: Updater):
        super().__init__()
        self._boxes = {key: (shape, x) for key, shape, x in _tensors(updater, first_only=True)}

    def set_up_planner(
        self, state_dict: Any, storage_meta: Any = None, is_coordinator: bool = False
    ) -> None:
        """Nothing: the state is known."""

    def create_local_plan(self) -> SavePlan:
        """One write per box."""
        return SavePlan([_write(key, *value) for key, value in self._boxes.items()])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """The boxes of all ranks are the checkpoint's table of contents."""
        plans: list[SavePlan]
        plans, metadata = create_default_global_save_plan(all_plans)
        return plans, metadata

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        """Nothing is changed any more."""
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        """The elements of a box."""
        return self._boxes[_key(write_item.index)][1]


class _Loading(LoadPlanner):
    """Plans what a rank reads: every saved box that overlaps one of its own."""

    def __init__(self, updater: Updater):
        self._boxes = {key: x for key, _, x in _tensors(updater, first_only=False)}
        self._metadata: dict[str, TensorStorageMetadata] = {}

    def set_up_planner(
        self, state_dict: Any, metadata: Any = None, is_coordinator: bool = False
    ) -> None:
        """Take the checkpoint's table of contents."""
        self._metadata = metadata.state_dict_metadata

    def create_local_plan(self) -> LoadPlan:
        """Reads for every box, and the certainty that they fill it."""
        items: list[ReadItem] = []
        for (name, offsets), values in self._boxes.items():
            if name not in self._metadata:
                raise ValueError(f"the checkpoint has no {name}")
            chunk = ChunkStorageMetadata(torch.Size(offsets), values.shape)
            found = create_read_items_for_chunk_list(name, self._metadata[name], [chunk])
            if sum(item.lengths.numel() for item in found) != values.numel():
                raise ValueError(f"the checkpoint does not hold all of {name}")
            items += found
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        """Ranks read on their own."""
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        """Nothing is changed any more."""
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Checkpoints of ours hold tensors only."""
        raise AssertionError(read_item)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """Where a read goes: the part of the box that it fills."""
        values = self._boxes[_key(read_item.dest_index)]
        for dim, (offset, length) in enumerate(
            zip(read_item.dest_offsets, read_item.lengths, strict=True)
        ):
            values = values.narrow(dim, offset, length)
        return values

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """It was read in place."""


def _write(key: Key, shape: Sizes, values: Tensor) -> WriteItem:
    name, offsets = key
    return WriteItem(
        MetadataIndex(name, offsets),
        WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            chunk=ChunkStorageMetadata(torch.Size(offsets), values.shape),
            properties=TensorProperties.create_from_tensor(values),
            size=torch.Size(shape),
        ),
    )


def _key(index: MetadataIndex) -> Key:
    assert index.offset is not None
    return index.fqn, tuple(index.offset)
