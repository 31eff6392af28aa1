"""CaseTables: many measured runs as tables of candidates, predicted at once.

Runs that share model, sequence length, number format, device, network and runtime are of one kind
and share the costs of their blocks; those that also share pipeline depth, chunks, context and
expert degree, schedule, order of the axes and recompute mode are rows of one table. The cluster of
a kind is as large as its largest run: what a collective crosses depends on its own span, not on
the cluster's size.
Graphs are built once per model, so predicting again with other constants costs only arithmetic.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.cost.block_parts import BlockGraphs
from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.cost.estimate import estimate
from planner.cost.stage_split import usual_counts
from planner.graph.view import RankView, cp_problem, ep_problem, tp_problem
from planner.spec.calibration import calibrated
from planner.spec.cluster import ClusterSpec
from planner.spec.divisors import not_divided
from planner.spec.documents import Document
from planner.spec.layout import Layout
from planner.spec.model import ModelSpec
from planner.spec.runs.case import Case
from planner.spec.runtime import Runtime
from planner.spec.workload import Workload

Floats = NDArray[np.float64]
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Cases of one shape. rows: their places among all cases. kind: place of their Kind."""

    rows: NDArray[np.int64]
    kind: int
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Kind:
    """What tables that differ only in depth and recomputation share: the costs of blocks.

    rows: of its tables together.
    """

    rows: NDArray[np.int64]
    model: ModelSpec
    cluster: ClusterSpec
    workload: Workload
    runtime: Runtime
    graphs: BlockGraphs


def problem(case: Case) -> str | None:
    """Why a case cannot be predicted, or None if it can."""
    layout, model, seq = case.layout, case.model, case.workload.seq_len
    view = RankView(layout.micro_batch, seq, layout.tp, cp=layout.cp, ep=layout.ep)
    found = (
        tp_problem(model, seq, layout.tp, case.runtime.sequence_parallel),
        cp_problem(model, view),
        ep_problem(model, layout.ep, layout.etp),
        _too_deep(layout, model),
        _too_many_experts(layout),
    )
    return next((each for each in found if each), None)


def _too_deep(layout: Layout, model: ModelSpec) -> str | None:
    if layout.pp <= model.layers:
        return None
    return f"pp={layout.pp} exceeds the model's {model.layers} layers"


def _too_many_experts(layout: Layout) -> str | None:
    """Experts lie on the ranks of one stage."""
    ranks, members = layout.dp * layout.cp * layout.tp, layout.ep * layout.etp
    if ranks % members == 0:
        return None
    named = f"ep={layout.ep}" if layout.etp == 1 else f"ep*etp={members}"
    return not_divided(named, members, "dp*cp*tp", ranks)


class CaseTables:
    """Cases that can be predicted (`problem` is None for all of them)."""

    def __init__(self, cases: Sequence[Case], graphs: dict[str, BlockGraphs] | None = None):
        self.cases = tuple(cases)
        self.graphs: dict[str, BlockGraphs] = {} if graphs is None else graphs
        text = _Texts()
        kinds: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for index, case in enumerate(self.cases):
            kinds[_kind(case, text)].append(index)
        self.kinds = [self._make_kind(rows, text) for rows in kinds.values()]
        self.tables = [
            table for place, kind in enumerate(self.kinds) for table in self._tables(place, kind)
        ]

    def _make_kind(self, rows: list[int], text: "_Texts") -> Kind:
        cases = [self.cases[row] for row in rows]
        first, largest = cases[0], max(cases, key=lambda case: case.cluster.devices)
        key = text.of(first.model)
        self.graphs.setdefault(key, BlockGraphs(first.model))
        return Kind(
            rows=np.array(rows),
            model=first.model,
            cluster=largest.cluster,
            workload=first.workload,
            runtime=first.runtime,
            graphs=self.graphs[key],
        )

    def _tables(self, place: int, kind: Kind) -> list[Table]:
        shapes: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for row in kind.rows.tolist():
            shapes[_shape(self.cases[row])].append(row)
        return [
            Table(np.array(rows), place, _candidates([self.cases[row] for row in rows]))
            for rows in shapes.values()
        ]

    def without(self, left_out: Iterable[int]) -> "CaseTables":
        """The other cases, as tables that share this one's graphs."""
        gone = set(left_out)
        kept = [case for index, case in enumerate(self.cases) if index not in gone]
        return CaseTables(kept, self.graphs)

    def only(self, chosen: Iterable[int]) -> "CaseTables":
        """Some cases, in the order given, as tables that share this one's graphs."""
        return CaseTables([self.cases[index] for index in chosen], self.graphs)

    def predict(self, values: Values | Sequence[Values]) -> tuple[Floats, Floats]:
        """Seconds per step and peak bytes of every case, with the given constants.

        values: the same for all cases, or one mapping per case.
        """
        seconds, peaks = np.zeros(len(self.cases)), np.zeros(len(self.cases))
        made: dict[tuple[int, tuple[tuple[str, float], ...]], Blocks] = {}
        for table in self.tables:
            for own, among in _alike(values, table.rows):
                key = (table.kind, tuple(sorted(own.items())))
                if key not in made:
                    made[key] = _blocks(self.kinds[table.kind], own)
                found = estimate(made[key], table.candidates.take(among))
                rows = table.rows[among]
                seconds[rows], peaks[rows] = found.step_seconds, found.peak_bytes
        return seconds, peaks


def _alike(
    values: Values | Sequence[Values], rows: NDArray[np.int64]
) -> list[tuple[Values, NDArray[np.int64]]]:
    """The distinct values of the rows of one table, and which of its rows have them."""
    if isinstance(values, Mapping):
        return [(values, np.arange(len(rows)))]
    groups: dict[tuple[tuple[str, float], ...], list[int]] = defaultdict(list)
    for place, row in enumerate(rows.tolist()):
        groups[tuple(sorted(values[row].items()))].append(place)
    return [(dict(key), np.array(places)) for key, places in groups.items()]


def _blocks(kind: Kind, values: Values) -> Blocks:
    cluster, runtime = calibrated(dict(values), kind.cluster, kind.runtime)
    return Blocks(kind.model, cluster, kind.workload, runtime, None, kind.graphs)


class _Texts:
    """Documents as text, each object once: runs share theirs."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Document, str]] = {}

    def of(self, document: Document) -> str:
        if id(document) not in self.known:
            self.known[id(document)] = (document, document.model_dump_json())
        return self.known[id(document)][1]


def _kind(case: Case, text: _Texts) -> tuple[object, ...]:
    workload = case.workload
    what = (text.of(case.model), workload.seq_len, workload.dtype)
    return (*what, text.of(case.runtime), *_network(case.cluster, text))


def _shape(case: Case) -> tuple[object, ...]:
    layout = case.layout
    degrees = (layout.pp, layout.vpp, layout.cp, layout.ep, layout.etp)
    return (*degrees, layout.recompute, layout.schedule, layout.axis_order)


def _network(cluster: ClusterSpec, text: _Texts) -> tuple[object, ...]:
    """A cluster without its size: the device and its links, one node's or several nodes'."""
    *inner, outer = cluster.tiers
    links = (*inner, outer.replace(devices=1) if inner else outer)
    device = text.of(cluster.accelerator)
    return (device, cluster.devices_per_node, cluster.backend, cluster.shared_cores, *links)


def _candidates(cases: Sequence[Case]) -> Candidates:
    layout = cases[0].layout
    counts = [usual_counts(case.model, case.runtime, layout.pp) for case in cases]
    held = np.array(counts, dtype=np.int64)

    def column(name: str) -> NDArray[np.int64]:
        return np.array([getattr(case.layout, name) or 0 for case in cases], dtype=np.int64)

    batches = [case.layout.microbatches(case.workload.global_batch) for case in cases]
    return Candidates(
        pp=layout.pp,
        schedule=layout.schedule,
        recompute=layout.recompute,
        axis_order=layout.axis_order,
        dp=column("dp"),
        tp=column("tp"),
        micro_batch=column("micro_batch"),
        microbatches=np.array(batches, dtype=np.int64),
        zero=column("zero"),
        counts=held,
        recomputed=held if layout.recompute != "none" else np.zeros_like(held),
        vpp=layout.vpp,
        cp=column("cp"),
        ep=column("ep"),
        etp=column("etp"),
        shard=column("shard"),
    )
