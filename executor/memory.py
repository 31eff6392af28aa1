"""Memory: bytes held by tensors while a step runs, and their highest after each action.

CUDA: the allocator counts (torch.cuda.memory_allocated). CPU: nobody counts, so in one extra
step after the timed ones every operator's results are watched through TorchDispatchMode: a
storage counts from the operator that made it until Python or autograd lets go of it. Left out
are the scratch space inside one kernel and what gloo copies.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from planner.schedule.action import Action

RawMemory = tuple[str, float, float]
"""Action, highest bytes while it ran, bytes held at its end."""


class Meter(Protocol):
    """Counts bytes held by tensors."""

    def held_bytes(self) -> float:
        """Now."""

    def take_peak(self) -> float:
        """The highest since the last call."""


class StorageMeter(TorchDispatchMode):
    """Counts storages on a CPU while it is entered as a context.

    held: tensors already there. resized: tensors whose storage grows and shrinks unseen.
    """

    def __init__(self, held: Iterable[Tensor], resized: Iterable[Tensor] = ()):
        super().__init__()
        self._resized: dict[int, torch.UntypedStorage] = {
            id(storage): storage for storage in map(Tensor.untyped_storage, resized)
        }
        self._held = self._peak = 0.0
        self._watched: dict[int, Any] = {}
        for tensor in held:
            self._watch(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and watch what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._watch(value)
        self._peak = max(self._peak, self.held_bytes())
        return result

    def held_bytes(self) -> float:
        """Bytes of all live storages that were seen."""
        return self._held + sum(float(storage.nbytes()) for storage in self._resized.values())

    def take_peak(self) -> float:
        """The highest since the last call."""
        peak, self._peak = self._peak, self.held_bytes()
        return peak

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._watched or key in self._resized:
            return
        size = storage.nbytes()
        self._watched[key] = weakref.ref(storage, self._forget(key, size))
        self._held += size

    def _forget(self, key: int, size: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            del self._watched[key]
            self._held -= size

        return forget


class AllocatorMeter:
    """Asks the CUDA allocator."""

    def __enter__(self) -> "AllocatorMeter":
        torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def held_bytes(self) -> float:
        """Bytes of live tensors, rounded up to the allocator's blocks."""
        return float(torch.cuda.memory_allocated())

    def take_peak(self) -> float:
        """The highest since the last call."""
        peak = float(torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
        return peak


class MemoryObserver:
    """Observes a step and keeps the memory around every action."""

    def __init__(self, meter: Meter, progress: Callable[[str], None]):
        self._meter, self._progress = meter, progress
        self.points: list[RawMemory] = []

    def before(self, action: Action) -> None:
        """Forget the peak between actions."""
        self._progress(f"{action} (memory)")

    def after(self, action: Action) -> None:
        """Note peak and level."""
        self.points.append((str(action), self._meter.take_peak(), self._meter.held_bytes()))
