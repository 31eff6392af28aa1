"""Survey: step and peak of many tables of plans at once, each term on the grid it needs.

Tables of one depth that differ in schedule, chunks or rows share nearly all terms of
planner.cost.estimate. Of all their rows together,

    what a microbatch computes, sends and keeps   on passing rows (planner.cost.grids)
    states, reductions, updates                   on keeping rows
    what overlap joins                            on distinct rows
    the pipeline                                  on passing rows, per schedule and chunks

and stages that hold the same are one column: with equal reductions the first of them ends last and
has most in flight, so that

    step = pipeline + max over columns (reduce - drained before its first stage) + ...

It is what `estimate` says of every row, but for the order of sums. Stages must be cut alike in all
rows of a table; tables that are not, chunks that are uneven and shared cores go to `estimate`.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from planner.cost.block_tables import BlockTables, kind_counts
from planner.cost.blocks import Blocks
from planner.cost.candidates import COLUMNS, STAGE_COLUMNS, Candidates, Ints
from planner.cost.collectives import Floats
from planner.cost.distinct import distinct_rows
from planner.cost.estimate import EXACT, estimate, wait_share
from planner.cost.grids import KEEPING, PASSING, Grid, sums_over
from planner.cost.memory import passing_parts, peak_bytes, state_bytes
from planner.cost.pipeline import Unchunked, ends_in_flight, halfway, in_flight, order_seconds
from planner.cost.stages import (
    Bare,
    Held,
    beside_backward,
    computed_seconds,
    hop_seconds,
    sent_seconds,
    settled,
    stage_parameters,
    update_seconds,
)
from planner.schedule.orders import V_SHAPED
from planner.spec.runtime import Schedule

FALLING = {"gpipe": "gpipe", "1f1b": "1f1b", "interleaved": "1f1b", "looped-bfs": "gpipe"}
"""Schedules whose ranks never have more in flight than those before, and their closed forms."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """[N] each, as in planner.cost.estimate.Estimates."""

    step_seconds: Floats
    bound_seconds: Floats
    peak_bytes: Floats


def survey(blocks: Blocks, tables: Sequence[Candidates]) -> list[Surveyed]:
    """Step and peak of every row of every table."""
    found: dict[int, Surveyed] = {}
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, table in enumerate(tables):
        groups[_kind(blocks, table, place)].append(place)
    for places in groups.values():
        some = [tables[place] for place in places]
        if len(some) == 1 and not _alike(blocks, some[0]):
            made = estimate(blocks, some[0])
            found[places[0]] = Surveyed(made.step_seconds, made.bound_seconds, made.peak_bytes)
        else:
            found.update(zip(places, _Survey(blocks, some).tables(), strict=True))
    return [found[place] for place in range(len(tables))]


def _alike(blocks: Blocks, table: Candidates) -> bool:
    """Whether a table can be surveyed."""
    if blocks.cluster.shared_cores or table.chunks is not None or table.stage is not None:
        return False
    held = [getattr(table, name) for name in STAGE_COLUMNS]
    return all(each is None or bool((each == each[:1]).all()) for each in held)


def _kind(blocks: Blocks, table: Candidates, place: int) -> tuple[object, ...]:
    """Tables of one kind share what is not of a row."""
    if not len(table) or not _alike(blocks, table):
        return ("alone", place)
    held = [getattr(table, name) for name in STAGE_COLUMNS]
    cut = tuple(None if each is None else each[0].tobytes() for each in held)
    folded = table.schedule in V_SHAPED and table.vpp % 2 == 0
    return table.pp, table.axis_order, table.recompute, folded, cut


class _Survey:
    """Tables of one kind. rows: their distinct rows, R of them, with T columns, the stages that
    differ; first: the first stage of each, [T]; alike: the column of every stage, [p]; whose: the
    distinct row of every row of each table."""

    def __init__(self, blocks: Blocks, tables: Sequence[Candidates]):
        self.blocks, self.asked = blocks, tables
        one = _with_kinds(blocks, tables[0])
        keys = [np.stack([getattr(each, name) for name in COLUMNS], axis=1) for each in tables]
        distinct, index = distinct_rows(np.concatenate(keys))
        ends = np.cumsum([len(each) for each in tables])
        self.whose = np.split(index, ends[:-1])
        self.first, self.alike = _stages(one)
        self.rows = _columns(one, distinct, self.first)
        self.passing, self.keeping = Grid.of(self.rows, PASSING), Grid.of(self.rows, KEEPING)
        self._passed, self._kept = (
            BlockTables(blocks, grid.rows) for grid in (self.passing, self.keeping)
        )

    def tables(self) -> Iterator[Surveyed]:
        """Each table's rows. What depends on schedule and chunks is told apart only here."""
        wait = 1 + wait_share(self.blocks, self.rows)
        after = self._update + self.blocks.runtime.step_seconds
        for table, own in zip(self.asked, self.whose, strict=True):
            pipeline = self._pipeline(table.schedule, table.vpp)
            step = (pipeline + self._behind) * wait + after
            bound = self._least(table, pipeline) * wait + after
            yield Surveyed(step[own], bound[own], self._peak(table.schedule, table.vpp, own))

    @cached_property
    def _update(self) -> Floats:
        """The longest update, [R]."""
        longest = update_seconds(self._kept, self._states).max(axis=1)
        update: Floats = longest[self.keeping.index]
        return update

    @cached_property
    def _states(self) -> Held:
        return stage_parameters(self._kept)

    @cached_property
    def _times(self) -> tuple[Ints, Floats, Floats, Floats]:
        """Forward and backward on passing rows, or on all rows where ZeRO sends with every
        microbatch; which of them every row is; the exposed reduction of every row, [R, T]."""
        forward, backward = computed_seconds(self._passed)
        sent, reduction = sent_seconds(self._kept, self._states)
        at, rows, keeping = self.passing.index, self.passing.rows, self.keeping.index
        if sent is not None:
            forward, backward, rows = forward[at], backward[at], self.rows
            sent = sent[0][keeping], sent[1][keeping]
            at = np.arange(len(at))
        nothing = np.zeros_like(backward)
        forward, backward, _ = settled(self.blocks, rows, Bare(forward, backward, sent, nothing))
        reduction = reduction[keeping]
        if self.blocks.runtime.overlaps_dp:
            reduction = beside_backward(self.blocks, self.rows.counts, reduction, backward[at])
        return at, forward, backward, reduction

    @cached_property
    def _line(self) -> tuple[Candidates, Floats, Floats, Floats, Floats]:
        """Rows of the pipeline, its stages' forward, backward and gradients of weights, [., p], and
        its hops."""
        at, forward, backward, _ = self._times
        weight, rows = self._passed_weight, self.passing.rows
        if at is not self.passing.index:
            weight, rows = weight[self.passing.index], self.rows
        forward, backward, weight = (each[:, self.alike] for each in (forward, backward, weight))
        return rows, forward, backward, weight, hop_seconds(self.blocks, rows)

    @cached_property
    def _passed_weight(self) -> Floats:
        return self._passed.over_stages("backward_weight")

    @cached_property
    def _behind(self) -> Floats:
        """How long after the pipeline the last reduction ends, [R]: that of a stage begins before
        the stages above it drain."""
        at, _, _, reduction = self._times
        _, _, backward, _, hop = self._line
        drain = np.cumsum(backward + hop[:, None], axis=1)
        before = np.concatenate([np.zeros((len(drain), 1)), drain[:, :-1]], axis=1)[:, self.first]
        behind: Floats = (reduction - before[at]).max(axis=1)
        return behind

    def _pipeline(self, schedule: Schedule, chunks: int) -> Floats:
        """Seconds of the pipeline, [R]."""
        at, hides = self._times[0], self.blocks.runtime.overlaps_p2p
        rows, forward, backward, weight, hop = self._line
        if schedule in FALLING and chunks > 1:
            return self._unchunked(FALLING[schedule]).cut(chunks, hides)[at]
        seconds = forward, backward, weight, rows.microbatches, hop
        return order_seconds(schedule, *seconds, chunks, hides)[at]

    def _unchunked(self, closed_form: str) -> Unchunked:
        if closed_form not in self._forms:
            rows, forward, backward, _, hop = self._line
            made = Unchunked(closed_form, forward, backward, rows.microbatches, hop)
            self._forms[closed_form] = made
        return self._forms[closed_form]

    @cached_property
    def _forms(self) -> dict[str, Unchunked]:
        return {}

    def _least(self, table: Candidates, pipeline: Floats) -> Floats:
        """What no replay starts its updates before, [R]."""
        at, _, _, reduction = self._times
        if table.vpp == 1 and table.schedule in EXACT:
            return pipeline + reduction[:, self.alike[0]]
        busy, once = self._work
        least = busy.max(axis=1)[at] if table.vpp > 1 else (busy[at] + reduction).max(axis=1)
        result: Floats = np.maximum(least, once[at])
        return result

    @cached_property
    def _work(self) -> tuple[Floats, Floats]:
        """Seconds that the stages work, [., T], and those that one microbatch takes."""
        _, forward, backward, _ = self._times
        rows, ahead, behind, weight, _ = self._line
        busy: Floats = rows.microbatches[:, None] * (forward + backward)
        return busy, (ahead + behind - weight).sum(axis=1)

    def _peak(self, schedule: Schedule, chunks: int, own: Ints) -> Floats:
        """Bytes of the fullest stage of some rows, which the schedule can run."""
        passing, keeping = self.passing.index[own], self.keeping.index[own]
        runs = np.zeros(len(self.passing.rows), dtype=np.bool_)
        runs[passing] = True
        always, layers, ends, left = (each[runs] for each in self._parts)
        shape = schedule, self.rows.pp, self.passing.rows.microbatches[runs], chunks
        held, held_ends = in_flight(*shape), ends_in_flight(*shape)
        if schedule in FALLING:
            most = held[:, self.first] * layers + held_ends[:, self.first] * ends
        else:
            each = held * layers[:, self.alike] + held_ends * ends[:, self.alike]
            each += halfway(*shape) * left[:, self.alike]
            columns = (each[:, self.alike == column] for column in range(len(self.first)))
            most = np.stack([column.max(axis=1) for column in columns], axis=1)
        places = (np.cumsum(runs) - 1)[passing]
        whole = sums_over(np.maximum, self._bytes, keeping, always + most, places)
        return peak_bytes(self.blocks, whole)

    @cached_property
    def _parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        return passing_parts(self._passed)

    @cached_property
    def _bytes(self) -> Floats:
        return state_bytes(self._kept)


def _with_kinds(blocks: Blocks, table: Candidates) -> Candidates:
    """The first row of a table, which says how many layers of every kind a stage holds: of stages
    that stand by themselves their order does not."""
    one = table.take(np.zeros(1, dtype=np.int64))
    if len(blocks.kinds) == 1 or one.kinds is not None:
        return one
    return replace(one, kinds=kind_counts(blocks, one.counts))


def _stages(table: Candidates) -> tuple[Ints, Ints]:
    """The first stage of every kind of stages, and the kind of every stage."""
    held = [getattr(table, name) for name in STAGE_COLUMNS]
    parts = [each[0].reshape(table.pp, -1) for each in held if each is not None]
    place = np.arange(table.pp)
    ends = np.stack([place == 0, place == table.pp - 1], axis=1).astype(np.int64)
    keys = np.concatenate([ends, *parts], axis=1)
    _, first, alike = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first, alike.reshape(-1)


def _columns(table: Candidates, rows: Ints, first: Ints) -> Candidates:
    """Rows of COLUMNS with the stages `first` of a table."""
    found: dict[str, Any] = dict(zip(COLUMNS, rows.T, strict=True))
    for name in STAGE_COLUMNS:
        if (each := getattr(table, name)) is not None:
            held = each[0][first]
            found[name] = np.broadcast_to(held, (len(rows), *held.shape))
    return replace(table, stage=first, **found)
