"""Held: the bytes that each pipeline rank holds over a step, exactly as its schedule runs.

    held = weights + gradients + optimiser        always
         + sum over its stages of microbatches alive * what one of them keeps
         + those between I and W * what they then hold more
         + an instant's buffers                   while a backward runs

A forward adds what its stage keeps; a whole backward frees it, and where the backward is split the
weight gradient does, because it needs both operands of the matrix products: the input gradient
leaves them, which may be more than was kept. An instant's buffers
(logits' gradients, the layer made again, gathered layers, messages) are the bound's own
(planner.cost.memory), so the peak never exceeds it. Left out: what an input gradient could free
early, and the allocator.
"""

from dataclasses import dataclass

import numpy as np

from planner.cost.block_tables import BlockTables
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import Estimates
from planner.cost.memory import kept_bytes, left_bytes
from planner.schedule import alive
from planner.schedule.action import FORWARD
from planner.simulator.replay import Replay
from planner.simulator.stage_seconds import Floats


@dataclass(frozen=True, slots=True)
class StageBytes:
    """always, instant: [ranks]; each: [S], what a microbatch keeps in a stage; left: [S], what more
    between the halves of a split backward."""

    always: Floats
    instant: Floats
    each: Floats
    left: Floats

    @classmethod
    def of(
        cls, blocks: Blocks, candidates: Candidates, estimates: Estimates, row: int
    ) -> "StageBytes":
        """Of one row of a table of candidates."""
        memory = estimates.memory
        one = candidates.take(np.array([row])).by_chunk()
        always = memory.weights[row] + memory.gradients[row] + memory.optimizer[row]
        tables = BlockTables(blocks, one)
        return cls(always, memory.instant[row], kept_bytes(tables)[0], left_bytes(tables)[0])


@dataclass(frozen=True, slots=True)
class Curve:
    """Bytes held by one rank from each moment on; seconds ascending."""

    at_seconds: Floats
    held_bytes: Floats

    @property
    def peak_bytes(self) -> float:
        """The most that is held."""
        return float(self.held_bytes.max())


def curves(played: Replay, sizes: StageBytes) -> list[Curve]:
    """One curve per pipeline rank."""
    return [_curve(played, sizes, rank) for rank in range(played.script.orders.ranks)]


def _curve(played: Replay, sizes: StageBytes, rank: int) -> Curve:
    made = played.script.orders
    own = slice(made.starts[rank], made.starts[rank + 1])
    kind, stage = made.kind[own], made.stage[own]
    passing = np.cumsum(alive.changes(kind, sizes.each[stage], sizes.left[stage]))
    before = np.append(0.0, passing[:-1])
    running = np.where(kind == FORWARD, 0.0, sizes.instant[rank])
    times = np.stack([played.starts[own], played.ends[own]], axis=1).reshape(-1)
    held = np.stack([before + running, passing], axis=1).reshape(-1)
    return Curve(np.append(0.0, times), sizes.always[rank] + np.append(0.0, held))
