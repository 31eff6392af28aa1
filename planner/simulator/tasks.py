"""Tasks: a script as tasks of the event engine, for ranks that share cores.

A rank is a stream; computing, reducing and updating demand its cores, receiving does not. A message
that travels beside compute is a stream of its own. A reduction takes what the closed form leaves
of it; the optimisers wait for all of them.
"""

from dataclasses import dataclass
from typing import Self

from planner.simulator.engine import Task
from planner.simulator.script import Script
from planner.simulator.stage_seconds import StageSeconds


@dataclass(frozen=True, slots=True)
class Tasks:
    """tasks, and where among them is what: computes and receives by action, numbered as in orders
    (the compute itself where nothing is received); reductions and updates by stage."""

    tasks: list[Task]
    computes: list[int]
    receives: list[int]
    reductions: list[int]
    updates: list[int]

    @classmethod
    def of(cls, script: Script, seconds: StageSeconds, cores: float) -> Self:
        """The tasks of a script. cores: of all ranks that one representative stands for."""
        steps = [step for rank in range(script.orders.ranks) for step in _steps(script, rank)]
        at = {step[1:]: number for number, step in enumerate(steps)}
        sources, count, stages = script.sources.tolist(), len(script), range(script.stages)
        return cls(
            tasks=[_task(script, seconds, cores, at, sources, *step) for step in steps],
            computes=[at["compute", number] for number in range(count)],
            receives=[
                at["compute" if sources[number] == number else "receive", number]
                for number in range(count)
            ],
            reductions=[at["reduce", stage] for stage in stages],
            updates=[at["update", stage] for stage in stages],
        )


Step = tuple[int, str, int]
"""Rank, what it does, and with which action or stage."""


def _steps(script: Script, rank: int) -> list[Step]:
    """What a rank does, in order."""
    made = script.orders
    finals = set(script.numbers[script.finals - 1].tolist())
    steps: list[Step] = []
    for number in range(made.starts[rank], made.starts[rank + 1]):
        if script.sources[number] != number:
            steps.append((rank, "receive", number))
        steps.append((rank, "compute", number))
        if number in finals:
            steps.append((rank, "reduce", int(made.stage[number])))
    own = [stage for stage, place in enumerate(made.rank_of_stage.tolist()) if place == rank]
    return steps + [(rank, "update", stage) for stage in own]


def _task(
    script: Script,
    seconds: StageSeconds,
    cores: float,
    at: dict[tuple[str, int], int],
    sources: list[int],
    rank: int,
    what: str,
    index: int,
) -> Task:
    made = script.orders
    if what == "receive":
        stream = rank if seconds.holds else made.ranks + index
        return Task(stream, seconds.hop, (at["compute", sources[index]],))
    if what == "compute":
        lasting = float(seconds.durations[made.kind[index], made.stage[index]])
        needs = (at["receive", index],) if sources[index] != index else ()
        return Task(rank, lasting, needs, cores)
    if what == "reduce":
        return Task(rank, float(seconds.exposed[index]), (), cores)
    reductions = tuple(at["reduce", stage] for stage in range(script.stages))
    return Task(rank, float(seconds.optimizer[index]), reductions, cores)
