"""Session: takes one profile within a budget of time, and continues an earlier one.

Order, most important first: the reference layers whole and their operators, slowdown, memory
bandwidth, the common collectives, the operators requested, the other collectives. A measurement
begun is finished, so the budget is overrun by one of them at most; what is not begun is named
in provenance.source. Whatever the previous profile holds of the same machine is kept and not
measured again.
"""

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from planner.spec import documents
from planner.spec.profile import CollectiveSample, OperatorSample, Phase, Profile
from planner.spec.provenance import Provenance
from profiler import (
    collectives,
    composition,
    fits,
    grid,
    kinds,
    layers,
    machine,
    operators,
    slowdown,
)
from profiler.collectives import CollectiveRequest
from profiler.kinds import OperatorRequest, distinct
from profiler.layers import Reference
from profiler.stopwatch import Lap, compute_timing
from profiler.team import Team

COMPOSITION_SHARE = 0.2
"""Of the budget; once it is used, composition is not measured in another pass."""
CHECKPOINT_SECONDS = 3.0
COPY_BYTES = 256 << 20
MEMORY_SHARE = 0.5
"""Of the machine's memory, what all workers together may use for one operator."""

Progress = Callable[[str, float], None]
"""Called with what is measured now and the share of the budget that is used."""


@dataclass(slots=True)
class _State:
    """What is known so far."""

    operators: dict[object, OperatorSample] = field(default_factory=dict)
    collectives: dict[object, CollectiveSample] = field(default_factory=dict)
    slowdown: tuple[tuple[int, float], ...] = ((1, 1.0),)
    composition: dict[Phase, float] = field(default_factory=dict)
    composition_of: str = ""
    memory_bandwidth: float | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def take_profile(
    requests: Sequence[OperatorRequest] = (),
    collective_sizes: Sequence[int] = (),
    *,
    max_ranks: int = 2,
    budget_seconds: float = 60.0,
    reference: Reference | None = None,
    previous: Profile | None = None,
    progress: Progress | None = None,
    checkpoint: Path | str | None = None,
    command: str = "meshwright profile",
) -> Profile:
    """Measure this machine.

    requests: operators, most important first. collective_sizes: bytes of full messages, on top
    of the grid. reference: the layers that composition is measured with (a plain model's if
    None). checkpoint: where to save what is known so far.
    Raises InputError for requests that cannot be timed, RunError when a worker fails.
    """
    return Session(max_ranks, budget_seconds, previous, progress, checkpoint, command).take(
        requests, collective_sizes, reference
    )


class Session:
    """One taking of a profile; see take_profile for the arguments."""

    def __init__(
        self,
        max_ranks: int,
        budget_seconds: float,
        previous: Profile | None,
        progress: Progress | None,
        checkpoint: Path | str | None,
        command: str,
    ):
        self.begin = self.saved = time.monotonic()
        self.budget_seconds, self.command = budget_seconds, command
        self.progress, self.checkpoint = progress, checkpoint
        self.machine = machine.describe()
        self.device = self.machine.kind
        on_cpu = self.device == "cpu"
        self.max_ranks = max_ranks if on_cpu else min(max_ranks, self.machine.accelerators)
        self.busy = min(self.machine.cores, slowdown.MOST_RANKS) if on_cpu else 1
        self.counts = slowdown.busy_counts(self.machine.cores, max_ranks) if on_cpu else (1,)
        self.state = self._continue(previous)
        self.previous = previous

    def _continue(self, previous: Profile | None) -> _State:
        state = _State()
        if previous is None:
            return state
        if previous.machine != self.machine:
            state.notes.append("the previous profile is of another machine or torch, not used")
            return state
        state.collectives = {_collective_key(s): s for s in previous.collectives}
        if previous.busy_ranks == self.busy:
            state.operators = {sample.key: sample for sample in previous.operators}
            state.composition = dict(previous.composition)
            state.composition_of = previous.composition_of
        state.slowdown = previous.slowdown
        state.memory_bandwidth = previous.memory_bandwidth_bytes_per_second
        state.notes.append(f"continues the profile of {previous.created}")
        return state

    def take(
        self,
        requests: Sequence[OperatorRequest],
        collective_sizes: Sequence[int],
        reference: Reference | None,
    ) -> Profile:
        """Measure what is missing, most important first."""
        whole = reference or grid.plain_reference(_dtype(requests))
        layers.check(whole.model, whole.seq_len)
        wanted = distinct(requests)
        for request in [*whole.operators(), *wanted]:
            kinds.check(request, self.device)
        first = collectives.essential(self.max_ranks, collective_sizes)
        with Team(max(self.busy, self.max_ranks, *self.counts), self.device) as team:
            self._composition(team, whole)
            self._slowdown(team)
            self._memory_bandwidth(team)
            self._collectives(team, first)
            self._operators(team, wanted)
            self._collectives(team, collectives.further(self.max_ranks))
        return self._save(self.profile())

    def profile(self) -> Profile:
        """What is known so far, as a document."""
        state, now = self.state, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        samples = tuple(state.collectives.values())
        return Profile(
            machine=self.machine,
            created=now,
            operators=tuple(state.operators.values()),
            collectives=samples,
            fits=fits.fit_all(samples),
            busy_ranks=self.busy,
            slowdown=state.slowdown,
            composition=dict(state.composition),
            composition_of=state.composition_of,
            memory_bandwidth_bytes_per_second=state.memory_bandwidth,
            provenance=Provenance(birth="measured", source=self._source(), date=now[:10]),
        )

    def _source(self) -> str:
        parts = [self.command, f"torch {self.machine.torch}", f"{self.busy} busy ranks"]
        if self.state.left_out:
            names, more = self.state.left_out[:3], len(self.state.left_out) - 3
            tail = f" and {more} more" if more > 0 else ""
            parts.append(f"left out: {', '.join(names)}{tail}")
        return "; ".join([*parts, *self.state.notes])

    def _operators(self, team: Team, wanted: Iterable[OperatorRequest]) -> None:
        """Measure what is not known, batch after batch."""
        missing = [request for request in wanted if not self._known(request)]
        fitting = [request for request in missing if self._fits_memory(request)]
        for request in missing:
            if request not in fitting:
                self.state.left_out.append(f"{request} (does not fit the memory)")
        for batch in operators.batches(fitting):
            if self._over(*map(str, batch)):
                continue
            self._say(str(batch[0]))
            for sample in operators.measure_batch(batch, team, self.busy):
                self.state.operators[sample.key] = sample
            self._checkpoint()

    def _known(self, request: OperatorRequest) -> bool:
        return all(
            (*request.key, phase) in self.state.operators
            for phase in operators.phases(request.kind)
        )

    def _fits_memory(self, request: OperatorRequest) -> bool:
        memory = self.machine.accelerator_memory_bytes or self.machine.memory_bytes
        return kinds.footprint_bytes(request) * self.busy <= MEMORY_SHARE * memory

    def _composition(self, team: Team, reference: Reference) -> None:
        """Time the reference layers whole, and their operators with them."""
        if self.state.composition and self.state.composition_of == str(reference):
            return
        if self._over(f"composition of {reference}") or not all(
            map(self._fits_memory, reference.operators())
        ):
            return
        self._say(f"layers of {reference}")
        factors, samples = composition.measure_composition(
            reference, team, self.busy, lambda: self._used() > COMPOSITION_SHARE
        )
        self.state.composition = factors
        self.state.operators |= {sample.key: sample for sample in samples}
        self.state.composition_of = str(reference)
        self._checkpoint()

    def _slowdown(self, team: Team) -> None:
        known = {count for count, _ in self.state.slowdown}
        if self.device != "cpu" or known >= set(self.counts) or self._over("slowdown"):
            return
        self._say(f"{max(self.counts)} ranks on {self.machine.cores} cores")
        plain = grid.plain_reference("fp32")
        self.state.slowdown = slowdown.measure_slowdown(
            plain, team, self.counts, self.machine.cores
        )
        self._checkpoint()

    def _memory_bandwidth(self, team: Team) -> None:
        if self.state.memory_bandwidth is not None or self._over("memory bandwidth"):
            return
        self._say("memory bandwidth")
        size = int(min(COPY_BYTES, self.machine.memory_bytes / (16 * self.busy)))
        results = team.run("copy", self.busy, size_bytes=size, seconds=0.3)
        laps = [Lap(*lap) for result in results for lap in result]
        self.state.memory_bandwidth = 2 * size / compute_timing(laps, self.device).seconds

    def _collectives(self, team: Team, wanted: Sequence[CollectiveRequest]) -> None:
        backend = collectives.backend(self.device)
        for request in wanted:
            if _request_key(request, backend) in self.state.collectives:
                continue
            if self._over(str(request)):
                continue
            self._say(str(request))
            sample = collectives.measure_collective(request, team)
            self.state.collectives[_collective_key(sample)] = sample
            self._checkpoint()

    def _used(self) -> float:
        return (time.monotonic() - self.begin) / self.budget_seconds

    def _over(self, *names: str) -> bool:
        """Whether the budget is used up; then what `names` say is left out."""
        if self._used() < 1.0:
            return False
        self.state.left_out += names
        return True

    def _say(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what, min(1.0, self._used()))

    def _checkpoint(self) -> None:
        if self.checkpoint is not None and time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self._save(self.profile())
            self.saved = time.monotonic()

    def _save(self, profile: Profile) -> Profile:
        if self.checkpoint is not None:
            documents.save(profile, self.checkpoint)
        return profile


def _dtype(requests: Sequence[OperatorRequest]) -> str:
    return requests[0].dtype if requests else "fp32"


def _collective_key(sample: CollectiveSample) -> tuple[str, str, int, int, float]:
    return (sample.op, sample.backend, sample.ranks, sample.groups, sample.message_bytes)


def _request_key(request: CollectiveRequest, backend: str) -> tuple[str, str, int, int, float]:
    size = float(request.message_bytes)
    return (request.op, backend, request.ranks, request.groups, size)
