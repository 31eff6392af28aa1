"""Session: takes one profile within a budget of time, and continues an earlier one.

Order, most important first: the reference layers whole and their operators, slowdown, memory
bandwidth, launch cost; then, taking turns (profiler.agenda), the common collectives and the
operators requested; then, taking turns, the designed grid (profiler.design), the other collectives
and overlaps. A measurement begun is finished, and begun only if it should end in time; what is
not begun is named in provenance.source. The file is written again, whole, while cases complete
and when the session is interrupted. Whatever the previous profile holds is kept and not measured
again; one of another machine is refused. Every sample says how and when it was measured.
"""

import datetime
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.profile import (
    CollectiveSample,
    LaunchCost,
    OperatorSample,
    OverlapSample,
    Phase,
    Profile,
)
from planner.spec.provenance import Provenance
from profiler import (
    collectives,
    composition,
    fits,
    grid,
    kinds,
    launch,
    layers,
    machine,
    operators,
    overlaps,
    slowdown,
)
from profiler.agenda import Case, Family, work_off
from profiler.collectives import CollectiveRequest
from profiler.kinds import OperatorRequest, distinct
from profiler.layers import Reference
from profiler.stopwatch import Lap, compute_timing
from profiler.team import Team

COMPOSITION_SHARE = 0.2
"""Of the budget; once it is used, composition is not measured in another pass."""
CHECKPOINT_SECONDS = 3.0
SETTING_UP = 2.0
"""A collective's or overlap's first guess, over the time it is measured for; assumed: buffers,
groups and warm-up."""
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
    overlaps: dict[object, OverlapSample] = field(default_factory=dict)
    launch: LaunchCost | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def take_profile(
    requests: Sequence[OperatorRequest] = (),
    collective_sizes: Sequence[int] = (),
    *,
    max_ranks: int = 2,
    budget_seconds: float = 60.0,
    reference: Reference | None = None,
    designed: Sequence[Sequence[OperatorRequest]] = (),
    previous: Profile | None = None,
    progress: Progress | None = None,
    checkpoint: Path | str | None = None,
    command: str = "meshwright profile",
) -> Profile:
    """Measure this machine.

    requests: operators, most important first. collective_sizes: bytes of full messages, on top
    of the grid. reference: the layers that composition is measured with (a plain model's if
    None). designed: families of further operators, which tell a device's constants; with them
    launch cost and overlaps are measured too. checkpoint: where to save what is known so far.
    Raises InputError for requests that cannot be timed or a previous profile of another machine,
    RunError when a worker fails.
    """
    return Session(max_ranks, budget_seconds, previous, progress, checkpoint, command).take(
        requests, collective_sizes, reference, designed
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
        self.previous = previous
        self.state = self._continue(previous)

    def _continue(self, previous: Profile | None) -> _State:
        state = _State()
        if previous is None:
            return state
        if different := machine.differences(previous.machine, self.machine):
            raise InputError(
                f"the profile to continue was taken on another machine or torch "
                f"({'; '.join(different)}); start a new one"
            )
        state.collectives = {sample.key: sample for sample in previous.collectives}
        state.overlaps = {sample.key: sample for sample in previous.overlaps}
        state.launch = previous.launch
        if previous.busy_ranks == self.busy:
            state.operators = {sample.key: sample for sample in previous.operators}
            state.composition = dict(previous.composition)
            state.composition_of = previous.composition_of
        state.slowdown = previous.slowdown
        state.memory_bandwidth = previous.memory_bandwidth_bytes_per_second
        return state

    def take(
        self,
        requests: Sequence[OperatorRequest],
        collective_sizes: Sequence[int],
        reference: Reference | None,
        designed: Sequence[Sequence[OperatorRequest]] = (),
    ) -> Profile:
        """Measure what is missing, most important first."""
        whole = reference or grid.plain_reference(_dtype(requests), self.device)
        layers.check(whole.model, whole.seq_len)
        wanted = distinct(requests)
        every = [*wanted, *(request for family in designed for request in family)]
        for request in [*whole.operators(), *every]:
            kinds.check(request, self.device)
        first = collectives.essential(self.max_ranks, collective_sizes)
        further = collectives.further(self.max_ranks)
        beside = overlaps.requests(self.max_ranks, self.device) if designed else []
        self._note_found(first + further, every, beside, whole.dtype)
        try:
            with Team(max(self.busy, self.max_ranks, *self.counts), self.device) as team:
                self._composition(team, whole)
                self._slowdown(team)
                self._memory_bandwidth(team)
                self._launch(team, whole.dtype, bool(designed))
                self._work_off([self._collectives(team, first), self._operators(team, wanted)])
                self._work_off(
                    [
                        *(self._operators(team, family) for family in designed),
                        self._collectives(team, further),
                        self._overlaps(team, beside, whole.dtype),
                    ]
                )
        finally:
            # also what an interrupted session has measured is kept
            found = self._save(self.profile())
        return found

    def _note_found(
        self,
        sent: Sequence[CollectiveRequest],
        computed: Sequence[OperatorRequest],
        beside: Sequence[CollectiveRequest],
        dtype: str,
    ) -> None:
        """Count what the previous profile has already."""
        if self.previous is None:
            return
        backend = collectives.backend(self.device)
        known = sum(r.key(backend) in self.state.collectives for r in sent)
        known += sum(map(self._known, computed))
        known += sum(overlaps.key(r, self.device, dtype) in self.state.overlaps for r in beside)
        total = len(sent) + len(computed) + len(beside)
        self.state.notes.append(
            f"continues the profile of {self.previous.created}: {known} of {total} cases found done"
        )

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
            overlap_slowdown=overlaps.overlap_factor(tuple(state.overlaps.values())),
            overlaps=tuple(state.overlaps.values()),
            launch=state.launch,
            provenance=Provenance(birth="measured", source=self._source(), date=now[:10]),
        )

    def _source(self) -> str:
        parts = [self.command, f"torch {self.machine.torch}", f"{self.busy} busy ranks"]
        if self.state.left_out:
            names, more = self.state.left_out[:3], len(self.state.left_out) - 3
            tail = f" and {more} more" if more > 0 else ""
            parts.append(f"left out: {', '.join(names)}{tail}")
        return "; ".join([*parts, *self.state.notes])

    def _work_off(self, families: Sequence[Family]) -> None:
        """Measure what there is time for, families taking turns."""
        self.state.left_out += work_off(families, self._left, self._say)

    def _born(self, how: str) -> Provenance:
        """The birth certificate of one sample."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return Provenance(birth="measured", source=f"{self.command}: {how}", date=now)

    def _operators(self, team: Team, wanted: Iterable[OperatorRequest]) -> Family:
        """What is not known, batch after batch."""
        missing = [request for request in wanted if not self._known(request)]
        fitting = [request for request in missing if self._fits_memory(request)]
        for request in missing:
            if request not in fitting:
                self.state.left_out.append(f"{request} (does not fit the memory)")
        return Family(
            [
                Case(
                    tuple(map(str, batch)),
                    functools.partial(self._measure_batch, team, batch),
                    operators.SECONDS * len(batch),
                )
                for batch in operators.batches(fitting)
            ]
        )

    def _measure_batch(self, team: Team, batch: Sequence[OperatorRequest]) -> None:
        clock = "CPU time" if self.device == "cpu" else "device events"
        born = self._born(f"operators in turn, {clock}, {self.busy} busy ranks")
        for sample in operators.measure_batch(batch, team, self.busy, operators.SECONDS):
            self.state.operators[sample.key] = sample.replace(provenance=born)
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
        born = self._born(f"beside whole layers, {self.busy} busy ranks")
        self.state.operators |= {s.key: s.replace(provenance=born) for s in samples}
        self.state.composition_of = str(reference)
        self._checkpoint()

    def _slowdown(self, team: Team) -> None:
        known = {count for count, _ in self.state.slowdown}
        if self.device != "cpu" or known >= set(self.counts) or self._over("slowdown"):
            return
        self._say(f"{max(self.counts)} ranks on {self.machine.cores} cores")
        plain = grid.plain_reference("fp32")
        self.state.slowdown = slowdown.measure_slowdown(
            plain, team, self.counts, self.machine.cores, slowdown.SECONDS
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

    def _launch(self, team: Team, dtype: str, wanted: bool) -> None:
        if not wanted or self.state.launch is not None or self._over("launch cost"):
            return
        self._say("launch cost")
        born = self._born("a chain of tiny kernels and a tiny layer, one rank")
        self.state.launch = launch.measure_launch(team, dtype, launch.SECONDS).replace(
            provenance=born
        )

    def _collectives(self, team: Team, wanted: Sequence[CollectiveRequest]) -> Family:
        backend, guess = collectives.backend(self.device), SETTING_UP * collectives.SECONDS
        return Family(
            [
                Case((str(r),), functools.partial(self._measure_collective, team, r), guess)
                for r in wanted
                if r.key(backend) not in self.state.collectives
            ]
        )

    def _measure_collective(self, team: Team, request: CollectiveRequest) -> None:
        clock = "host clock" if self.device == "cpu" else f"device events, {collectives.BURST}x"
        sample = collectives.measure_collective(request, team, collectives.SECONDS)
        self.state.collectives[sample.key] = sample.replace(
            provenance=self._born(f"{clock}, {request.busy} ranks at once")
        )
        self._checkpoint()

    def _overlaps(self, team: Team, wanted: Sequence[CollectiveRequest], dtype: str) -> Family:
        return Family(
            [
                Case(
                    (f"{request} beside computing",),
                    functools.partial(self._measure_overlap, team, request, dtype),
                    SETTING_UP * overlaps.SECONDS,
                )
                for request in wanted
                if overlaps.key(request, self.device, dtype) not in self.state.overlaps
            ]
        )

    def _measure_overlap(self, team: Team, request: CollectiveRequest, dtype: str) -> None:
        how = "gloo beside one thread" if self.device == "cpu" else "two streams, device events"
        sample = overlaps.measure_overlap(request, team, dtype, overlaps.SECONDS)
        self.state.overlaps[sample.key] = sample.replace(provenance=self._born(how))
        self._checkpoint()

    def _left(self) -> float:
        return self.begin + self.budget_seconds - time.monotonic()

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
