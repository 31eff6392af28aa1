"""Tasks: a script as tasks of the event engine, for ranks that share cores.

A rank is a stream; computing, reducing and updating demand its cores, receiving does not. A message
that travels beside compute is a stream of its own. A reduction takes what the closed form leaves
of it; the optimisers wait for all of them.

Where messages take no core (SharedCores.network) an action computes first and then waits for its
messages, a reduction is nothing but messages, and the update ends with its own. A receive begins
with the receiver's word that it is ready, so that a message ends

    max(reached + notice, sent) + hop        after a rank reached the receive and another sent

(the rendezvous of gloo: a receiver that is early by more than a notice does not delay it).
"""

from dataclasses import dataclass
from typing import Self

from planner.simulator.engine import Task
from planner.simulator.script import Script
from planner.simulator.stage_seconds import StageSeconds


@dataclass(frozen=True, slots=True)
class Tasks:
    """tasks, and where among them is what: computes and receives by action, numbered as in orders
    (the compute itself where nothing is received), dones: what an action ends with; reductions and
    updates by stage, published: what an update ends with."""

    tasks: list[Task]
    computes: list[int]
    dones: list[int]
    receives: list[int]
    reductions: list[int]
    updates: list[int]
    published: list[int]

    @classmethod
    def of(cls, script: Script, seconds: StageSeconds, cores: float) -> Self:
        """The tasks of a script. cores: of all ranks that one representative stands for."""
        maker = _Maker(script, seconds, cores)
        at = {step[1:]: number for number, step in enumerate(maker.steps)}
        actions, stages = range(len(script)), range(script.stages)
        return cls(
            tasks=[maker.task(at, *step) for step in maker.steps],
            computes=[at["compute", number] for number in actions],
            dones=[_last(at, number, "exchange", "compute") for number in actions],
            receives=[_last(at, number, "receive", "compute") for number in actions],
            reductions=[at["reduce", stage] for stage in stages],
            updates=[at["update", stage] for stage in stages],
            published=[_last(at, stage, "publish", "update") for stage in stages],
        )


Step = tuple[int, str, int]
"""Rank, what it does, and with which action or stage."""
Places = dict[tuple[str, int], int]
"""The number of the task that does something with an action or a stage."""


def _last(at: Places, index: int, *names: str) -> int:
    """The task of the first of these names that there is."""
    return next(at[name, index] for name in names if (name, index) in at)


class _Maker:
    def __init__(self, script: Script, seconds: StageSeconds, cores: float):
        self.script, self.seconds, self.cores = script, seconds, cores
        self.sources, self.links = script.sources.tolist(), script.links.tolist()
        self.finals = set(script.numbers[script.finals - 1].tolist())
        ranks = range(script.orders.ranks)
        self.steps = [(rank, *step) for rank in ranks for step in self._steps(rank)]

    def _steps(self, rank: int) -> list[tuple[str, int]]:
        """What a rank does, in order."""
        made, sent = self.script.orders, self.seconds.messages
        steps: list[tuple[str, int]] = []
        for number in range(made.starts[rank], made.starts[rank + 1]):
            if self.sources[number] != number:
                steps += [("call", number)] if sent and self.seconds.holds else []
                steps.append(("receive", number))
            steps += [("compute", number), *([("exchange", number)] if sent else [])]
            if number in self.finals:
                steps.append(("reduce", int(made.stage[number])))
        own = [stage for stage, place in enumerate(made.rank_of_stage.tolist()) if place == rank]
        for stage in own:
            steps += [("update", stage), *([("publish", stage)] if sent else [])]
        return steps

    def task(self, at: Places, rank: int, what: str, index: int) -> Task:
        """The task of one step."""
        if what in ("call", "receive"):
            return self._receiving(at, rank, what, index)
        if what in ("compute", "exchange"):
            return self._acting(at, rank, what, index)
        return self._ending(at, rank, what, index)

    def _receiving(self, at: Places, rank: int, what: str, number: int) -> Task:
        seconds, link = self.seconds, self.links[number]
        if what == "call":
            assert seconds.messages is not None
            return Task(rank, float(seconds.messages.notices[link]))
        stream = rank if seconds.holds else self.script.orders.ranks + number
        sent = _last(at, self.sources[number], "exchange", "compute")
        return Task(stream, float(seconds.hops[link]), (sent,))

    def _acting(self, at: Places, rank: int, what: str, number: int) -> Task:
        made, sent = self.script.orders, self.seconds.messages
        cell = made.kind[number], made.stage[number]
        apart = float(sent.actions[cell]) if sent else 0.0
        if what == "exchange":
            return Task(rank, apart)
        needs = (at["receive", number],) if self.sources[number] != number else ()
        return Task(rank, float(self.seconds.durations[cell]) - apart, needs, self.cores)

    def _ending(self, at: Places, rank: int, what: str, stage: int) -> Task:
        seconds, sent = self.seconds, self.seconds.messages
        if what == "reduce":
            return Task(rank, float(seconds.exposed[stage]), (), 0.0 if sent else self.cores)
        apart = float(sent.optimizer[stage]) if sent else 0.0
        if what == "publish":
            return Task(rank, apart)
        reductions = tuple(at["reduce", each] for each in range(self.script.stages))
        return Task(rank, float(seconds.optimizer[stage]) - apart, reductions, self.cores)
