"""The study: cross-validation of the cost model, written as docs/validation.md.

    make validation        (python -m reports.validation.study [FOLDER])

Every time in the tables is that of constants fitted without the rows judged, whole groups left
out; the band of a group comes from the ratios of the others. What is at risk comes from the
catalog's memory constants. The baselines are left-one-group-out too (model and devices).
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.search import fitting
from planner.search.case_tables import CaseTables, problem
from planner.search.differences import known_calibrations, spreads_between
from planner.search.fitting import Floats
from planner.search.holdout import band, coverage, held_out, spread
from planner.search.own_runs import own_time
from planner.search.runs import RunPrediction
from planner.spec import catalog
from planner.spec.calibration import Calibration, Constant
from planner.spec.documents import write_text
from planner.spec.plan import AT_RISK
from planner.spec.run import Run, read_runs
from planner.spec.run_case import Case, make_cases
from planner.spec.run_where import compile_where
from planner.spec.spread import SAFE, Spread
from reports.figures.validation import plot_validation, write_figure
from reports.validation.baselines import NAMES, baseline_seconds
from reports.validation.errors import error_metrics, memory_metrics, time_metrics
from reports.validation.feasibility import feasibility_metrics
from reports.validation.order import order_metrics
from reports.validation.outcome import Outcome, outcome
from reports.validation.splits import SPLITS, TRANSFERS, Split, Transfer
from reports.validation.validation import Validation

Row = dict[str, Any]

MEMORY = {
    "Ultra-Scale; group": (
        "hf_ultrascale",
        "hf_ultrascale_crashed_or_oom",
        ("model", "n_gpus"),
    ),
    "BLOOM; layout": ("bigscience_bloom_prequel", "", ("tp", "pp", "dp")),
}
"""Peaks of a file, failures of another, and what is left out together."""

RUNS_OF_A_NEW_CLUSTER = 10
DRAWS = 5
"""How often ten runs are drawn; the median over the draws is reported."""


def cases_of(files: Sequence[str]) -> list[Case]:
    """Every run of the catalog's files that can be predicted."""
    runs = [run for name in files for run in read_runs(catalog.FOLDER / "runs" / f"{name}.csv")]
    return [case for case in make_cases(runs).cases if problem(case) is None]


def selected(cases: Sequence[Case], where: str) -> list[Case]:
    """The cases of runs that an expression chooses."""
    chosen: Callable[[Run], bool] = compile_where(where) if where else lambda _: True
    return [case for case in cases if chosen(case.run)]


@dataclass(frozen=True, slots=True)
class Judged:
    """A split with its held-out outcomes."""

    split: Split
    outcomes: tuple[Outcome, ...]
    groups: int
    seconds: float

    @property
    def row(self) -> Row:
        """Its figures."""
        ours = [o.predicted.step_seconds for o in self.outcomes]
        risky = [o.predicted.at_risk for o in self.outcomes]
        measured = [o.measured_seconds or 0.0 for o in self.outcomes]
        found: Row = {**time_metrics(self.outcomes), **order_metrics(self.outcomes, ours, risky)}
        found["wide"] = order_metrics(self.outcomes, ours, risky, wide=True)
        for name in NAMES:
            guesses = baseline_seconds(self.outcomes, name)
            pairs = [(g, m) for g, m in zip(guesses, measured, strict=True) if g is not None]
            found[name] = {**error_metrics(pairs), **order_metrics(self.outcomes, guesses)}
        return found


def judge(split: Split) -> Judged:
    """Leave out group after group."""
    begun = time.perf_counter()
    cases = [case for case in cases_of(split.files) if case.step_seconds]
    judged, fitted = selected(cases, split.judged), selected(cases, split.fitted)
    own = {id(case) for case in fitted}
    union = [*fitted, *(case for case in judged if id(case) not in own)]
    groups = [_group(split, case) for case in union]
    tables, training = CaseTables(union), CaseTables(fitted)
    start = fitting.fit_time(training).values
    seconds = np.zeros(len(union))
    for group in dict.fromkeys(groups):
        inside = [i for i, each in enumerate(groups) if each == group]
        left = {i for i in inside if i < len(fitted)}
        found = fitting.fit_time(training.without(left), start).values
        seconds[inside] = tables.only(inside).predict(found)[0]
    place = {id(case): index for index, case in enumerate(union)}
    rows = [place[id(case)] for case in judged]
    outcomes = _outcomes(judged, seconds[rows], [groups[i] for i in rows])
    taken = time.perf_counter() - begun
    return Judged(split, outcomes, len(set(groups)), taken)


def _group(split: Split, case: Case) -> tuple[object, ...]:
    return (case.run.file, *(getattr(case.run, column) for column in split.by))


def _outcomes(
    cases: Sequence[Case], seconds: Floats, groups: Sequence[tuple[object, ...]]
) -> tuple[Outcome, ...]:
    """Predictions with the band that the other groups set and the peak of the catalog."""
    ratios = np.array([case.step_seconds for case in cases], dtype=np.float64) / seconds
    bands = {
        group: band(ratios[[other != group for other in groups]]) for group in dict.fromkeys(groups)
    }
    peaks = CaseTables(cases).predict(_memory_values(cases[0]))[1]
    found = []
    for case, each, peak, group in zip(
        cases, seconds.tolist(), peaks.tolist(), groups, strict=True
    ):
        low, high = bands[group]
        risk = peak > AT_RISK * case.cluster.memory_bytes
        predicted = RunPrediction(each, each * low, each * high, peak, risk)
        found.append(outcome(case, predicted))
    return tuple(found)


def _memory_values(case: Case) -> dict[str, float]:
    found = catalog.find_calibration(case.cluster.accelerator, case.runtime.name)
    values = found.values() if found else {}
    return {name: value for name, value in values.items() if name in fitting.MEMORY}


def judge_memory(file: str, failures: str, by: tuple[str, ...]) -> tuple[Row, tuple[Outcome, ...]]:
    """Held-out peaks of a file; failures of another, predicted by all peaks."""
    cases = [case for case in cases_of((file,)) if case.peak_bytes]
    groups = [tuple(getattr(case.run, column) for column in by) for case in cases]
    tables = CaseTables(cases)
    full = fitting.fit_memory(tables).values
    held = held_out(tables, groups, fitting.fit_memory, full).peak_bytes
    failed = cases_of((failures,)) if failures else []
    both = [*cases, *failed]
    peaks = np.concatenate([held, CaseTables(failed).predict(full)[1]]) if failed else held
    measured = np.array([case.peak_bytes for case in cases], dtype=np.float64)
    around = _spreads(measured / held, groups, len(both))
    outcomes = tuple(
        outcome(case, _weighed(case, peak, each))
        for case, peak, each in zip(both, peaks.tolist(), around, strict=True)
    )
    pairs = list(zip(held.tolist(), measured.tolist(), strict=True))
    row = {
        **error_metrics(pairs),
        "runs": len(cases),
        "coverage": coverage(measured / held, groups),
        "safe_below": memory_metrics(outcomes)["share_unsafe"],
        **feasibility_metrics(outcomes),
    }
    return row, outcomes


def _spreads(ratios: Floats, groups: Sequence[object], count: int) -> list[Spread]:
    """For every case the spread of the other groups' ratios, for failures that of all."""
    others = {
        group: spread(ratios[[each != group for each in groups]]) for group in dict.fromkeys(groups)
    }
    return [*(others[group] for group in groups), *[spread(ratios)] * (count - len(groups))]


def _weighed(case: Case, peak: float, around: Spread) -> RunPrediction:
    memory = case.cluster.memory_bytes
    return RunPrediction(
        1.0,
        1.0,
        1.0,
        peak,
        peak > AT_RISK * memory,
        safe_peak_bytes=peak * around.quantile(SAFE),
        run_out_probability=around.share_above(memory / peak),
    )


def transfer(asked: Transfer) -> Row:
    """Ten runs of a new cluster: the error on its others, over several draws."""
    cases = [case for case in cases_of(asked.files) if case.step_seconds]
    known, new = selected(cases, asked.known), selected(cases, asked.new)
    tables = CaseTables(new)
    measured = np.array([case.step_seconds for case in new], dtype=np.float64)
    start = _as_calibration(known, asked.by)
    judged = {(c.cluster.accelerator.name, c.runtime.name) for c in cases}
    ten = own_time(new[0], start, spreads_between(known_calibrations(without=judged)))
    own = fitting.fit_time(tables)
    few = min(RUNS_OF_A_NEW_CLUSTER, len(new) - 3)
    rest = []
    for draw in range(DRAWS):
        chosen = set(random.Random(draw).sample(range(len(new)), few))
        found = ten.fit(tables.only(sorted(chosen)))[0]
        others = [i for i in range(len(new)) if i not in chosen]
        rest.append(_median(tables.predict(found.values)[0][others], measured[others]))
    in_sample = _median(tables.predict(own.values)[0], measured)
    return {
        "new cluster": asked.title,
        "runs": len(new),
        "before": _median(tables.predict(start.values())[0], measured),
        "after": statistics.median(rest),
        "worst": max(rest),
        "in_sample": in_sample,
        "ratio": statistics.median(rest) / in_sample,
        "why": f": {asked.why}" if asked.why else "",
    }


def _as_calibration(cases: Sequence[Case], by: Sequence[str]) -> Calibration:
    """All constants of time, fitted to the cases, and the median error of groups left out."""
    tables = CaseTables(cases)
    found = fitting.fit_time(tables)
    groups = [tuple(getattr(case.run, column) for column in by) for case in cases]
    held = held_out(tables, groups, fitting.fit_time, found.values).step_seconds
    measured = np.array([case.step_seconds for case in cases], dtype=np.float64)
    constants: dict[Any, Constant] = dict(found.constants)
    return Calibration(
        accelerator=cases[0].cluster.accelerator.name,
        runtime=cases[0].runtime.name,
        constants=constants,
        runs=len(cases),
        sources=(),
        date="",
        median_error=_median(held, measured),
    )


def _median(predicted: Floats, measured: Floats) -> float:
    return float(np.median(np.abs(predicted / measured - 1.0)))


def main(folder: str = "docs") -> None:
    """Write the document and its figures."""
    from_clock = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        weighing = {name: pool.submit(judge_memory, *asked) for name, asked in MEMORY.items()}
        judging = [pool.submit(judge, split) for split in SPLITS]
        moving = [pool.submit(transfer, each) for each in TRANSFERS]
        memory = {name: found.result() for name, found in weighing.items()}
        judged = [found.result() for found in judging]
        transfers = [found.result() for found in moving]
    for each in judged:
        sys.stderr.write(f"{each.split.title}: {each.seconds:.0f} s\n")
    text = document(judged, {name: row for name, (row, _) in memory.items()}, transfers)
    write_text(Path(folder) / "validation.md", text)
    _figures(judged, [o for _, outcomes in memory.values() for o in outcomes], Path(folder))
    sys.stderr.write(f"wrote {folder}/validation.md in {time.perf_counter() - from_clock:.0f} s\n")


def _figures(judged: Sequence[Judged], weighed: Sequence[Outcome], folder: Path) -> None:
    seen: set[tuple[str, int]] = set()
    timed = []
    for each in (o for found in judged for o in found.outcomes):
        key = each.run.file, each.run.line
        if key not in seen:
            seen.add(key)
            timed.append(each)
    for name, what, outcomes in (
        ("time", "step time", timed),
        ("memory", "peak memory", [o for o in weighed if o.measured_bytes]),
    ):
        drawn = Validation(len(outcomes), {}, tuple(outcomes), {})
        write_figure(plot_validation(drawn, what), folder / "figures" / f"validation-{name}.svg")


HEAD = """# Validation

Written by `make validation`; do not edit. Measured runs are those of `planner/catalog/runs`.

Every time below is predicted by constants that were fitted **without** the rows it is judged on:
whole groups are left out (after the semicolon: what is left out together). Beside it stand two
trivial baselines, fitted without the group too: a constant FLOP/s, and FLOPs with the pipeline's
bubble. Order: pairs of layouts of one question (source, model, devices, batch, sequence) that
differ by more than 2 %. Regret: what is lost by taking the predicted best of those not at risk
(peak below 88 % of the memory). Band: how often the measured step lies in the 80 % band that the
other groups set.

What held out does not mean here: only the constants are fitted without the judged rows. The
structure of the model was chosen while looking at the errors on all of these rows, held-out ones
included: the side on which nanotron's split puts a layer and what it keeps in memory; that NeMo
hides transfers between chunks; the exponent of the corner between host and device (4, 8 and 16
were tried on vTrain, held out); the penalty for head sizes that are no multiple of 8 (by hand, on
BLOOM); which constants are fitted, and on which Ultra-Scale rows (three choices were tried);
untied tables for the 3B model (both were tried); 88 % as the limit of risk; 1 % as the spread of
replicas (0 to 8 % were tried, in sample). A kernel that adds the gradients of every microbatch was
tried and left out: held out, it made Ultra-Scale worse (5.2 %) and BLOOM a little better (3.9 %).
Two more terms were tried on vTrain and are not in the model. Products that take 256 elements of k
to fill their pipeline instead of 64 (planner.cost.matmul), held out: vTrain 5.9 % median, 94.4 % of
pairs, 3.3 % regret, BLOOM 4.5 %, LLM-foundry (80 GB) 2.5 %, Ultra-Scale by model 3.9 %; nothing
worse, but every calibration would have to be fitted anew (128: vTrain 6.4 %, 94.1 %, 3.3 %). And a
vocabulary of 50,257 that no tensor cores like, three times slower where it is not divided: vTrain
6.0 %, 93.0 %, 3.6 %; with both, 6.7 %, 93.0 %, 3.5 %.
How ten runs move a calibration was chosen on the very pairs that judge it: about 60 rules were
screened on them for a version that is lost, before the one below (planner.search.own_runs) was
written down from its principle and tried in two forms, with the noise of the start and, better on
one pair, with a share of it that the runs choose; the second stands.
So these errors flatter; rows kept aside elsewhere judge. A question (order, regret) is also
narrower than (model, devices, batch): sequence length and device kind are held equal, decided after
the wider one gave LLM-foundry 90.5 % of pairs (two wrong pairs, both across two kinds of device)
and, in another run, a regret of 69 % between sequence lengths. With the narrower one LLM-foundry
and NeMo have no question of two layouts; a second table has the wider one.

"""


def document(judged: Sequence[Judged], memory: dict[str, Row], transfers: Sequence[Row]) -> str:
    """The whole text."""
    parts = [
        HEAD,
        "## Step time, held out\n\n",
        _table([_time_row(each) for each in judged]),
        "\n![predicted over measured step time](figures/validation-time.svg)\n",
        "\n## Order and regret, held out\n\n",
        _table([row for each in judged if (row := _order_row(each))["questions"]]),
        "\nThe same where a question is (model, devices, batch) only, whatever the sequence length "
        "and the kind of device:\n\n",
        _table([row for each in judged if (row := _wide_row(each))["questions"]]),
        "\n## Peak memory and failures\n\n",
        _table([_memory_row(name, row) for name, row in memory.items()]),
        "\nTargets: median 8 %, balanced accuracy 92 %. The safe side is the prediction times the "
        "99th percentile of the other groups' held-out ratios; the column says how often a "
        "measured peak is more than 5 % above it. Chance: the mean probability to run out of "
        "memory that the same ratios give, of the runs that failed and of those that ran; only "
        "the latter can be measured, so the ratios are those of runs that fitted.\n",
        "\n![predicted over measured peak](figures/validation-memory.svg)\n",
        "\n## Ten runs of a new cluster\n\n",
        "The constants of the known rows, before and after ten runs of the new cluster; the error "
        f"is that of its other rows, the median of {DRAWS} draws. Target: within 1.5 of in "
        "sample. How far constants may move comes from how they differ between the catalog's "
        "calibrations, without that of the pair judged, and from the ten runs "
        "(planner/search/own_runs.py); the noise from the error of the known rows, held out.\n\n",
        _table([_transfer_row(row) for row in transfers]),
        "\n## The catalog's calibrations\n\n",
        _table(_calibration_rows()),
        "\n## What falls short\n\n",
        *(f"- {line}\n" for line in _short(judged, memory, transfers)),
    ]
    return "".join(parts)


def _time_row(each: Judged) -> Row:
    row, target = each.row, each.split.targets[0]
    return {
        "rows; left out": each.split.title,
        "runs": len(each.outcomes),
        "groups": each.groups,
        "median": _percent(row["median_ape"]),
        "target": "" if target is None else _percent(target),
        "mean": _percent(row["mean_ape"]),
        "p90": _percent(row["p90_ape"]),
        "bias": _percent(row["bias"]),
        "in band": _percent(row["coverage"]),
        "constant": _percent(row["constant"]["median_ape"]),
        "bubble": _percent(row["flops_bubble"]["median_ape"]),
    }


def _order_row(each: Judged) -> Row:
    row, (_, pairs, regret) = each.row, each.split.targets
    return {
        "rows; left out": each.split.title,
        "questions": row["groups"],
        "pairs": _percent(row["pairwise"]),
        "target pairs": _percent(pairs),
        "regret": _percent(row["mean_regret"]),
        "target regret": _percent(regret),
        "largest": _percent(row["max_regret"]),
        "constant: pairs": _percent(row["constant"]["pairwise"]),
        "constant: regret": _percent(row["constant"]["mean_regret"]),
        "bubble: pairs": _percent(row["flops_bubble"]["pairwise"]),
        "bubble: regret": _percent(row["flops_bubble"]["mean_regret"]),
    }


def _wide_row(each: Judged) -> Row:
    row, (_, pairs, regret) = each.row["wide"], each.split.targets
    return {
        "rows; left out": each.split.title,
        "questions": row["groups"],
        "pairs": _percent(row["pairwise"]),
        "target pairs": _percent(pairs),
        "regret": _percent(row["mean_regret"]),
        "target regret": _percent(regret),
        "largest": _percent(row["max_regret"]),
    }


def _memory_row(name: str, row: Row) -> Row:
    return {
        "rows; left out": name,
        "runs": row["runs"],
        "median": _percent(row["median_ape"]),
        "mean": _percent(row["mean_ape"]),
        "p90": _percent(row["p90_ape"]),
        "bias": _percent(row["bias"]),
        "in band": _percent(row["coverage"]),
        "above the safe side": _percent(row["safe_below"]),
        "recall": _percent(row["recall"]),
        "precision": _percent(row["precision"]),
        "balanced accuracy": _percent(row["balanced_accuracy"]),
        "chance: failed": _percent(row["chance_failed"]),
        "chance: ran": _percent(row["chance_ran"]),
    }


def _transfer_row(row: Row) -> Row:
    return {
        "new cluster": row["new cluster"],
        "runs": row["runs"],
        "before": _percent(row["before"]),
        "after ten": _percent(row["after"]),
        "worst draw": _percent(row["worst"]),
        "in sample": _percent(row["in_sample"]),
        "ratio": f"{row['ratio']:.2f}",
    }


def _calibration_rows() -> list[Row]:
    found = []
    for name in catalog.list_calibrations():
        device, _, software = name.partition("--")
        made = catalog.find_calibration(catalog.find_accelerator(device), software)
        assert made is not None
        found.append(
            {
                "calibration": name,
                "runs": made.runs,
                "constants": len(made.constants),
                "held-out median": _percent(made.median_error),
                "band": f"{made.time_low:.2f}-{made.time_high:.2f}",
                "coverage": _percent(made.coverage),
                "rows": f"`{made.where}`" if made.where else "all",
                "left out": made.groups,
            }
        )
    return found


def _short(judged: Sequence[Judged], memory: dict[str, Row], transfers: Sequence[Row]) -> list[str]:
    """Every figure that misses its target, with what is known of the cause."""
    found = []
    for each in judged:
        row, targets = each.row, each.split.targets
        got = row["median_ape"], row["pairwise"], row["mean_regret"]
        names = ("median error", "pairs in order", "mean regret")
        for name, value, target, sign in zip(names, got, targets, (1, -1, 1), strict=True):
            if target is not None and value is not None and sign * value > sign * target:
                why = f": {each.split.why}" if each.split.why else ""
                missed = f"{_percent(value)} {name}, target {_percent(target)}"
                found.append(f"{each.split.title}: {missed}{why}.")
        if each.row["pairwise"] is None and row["wide"]["groups"]:
            found += _wide_misses(each)
        if not 0.75 <= row["coverage"] <= 0.85:
            found.append(f"{each.split.title}: the band covers {_percent(row['coverage'])}.")
        for name in NAMES:
            other = row[name]["median_ape"]
            if other is not None and other < row["median_ape"]:
                found.append(f"{each.split.title}: the baseline {name} has {_percent(other)}.")
    for name, row in memory.items():
        if row["median_ape"] > 0.08:
            found.append(f"Memory of {name}: {_percent(row['median_ape'])}, target 8.0 %.")
        if row["safe_below"] > 0.01:
            beyond = _percent(row["safe_below"])
            found.append(f"Memory of {name}: {beyond} of the peaks are beyond the safe side.")
    found += [
        f"{row['new cluster']}: {row['ratio']:.2f} times the in-sample error after ten runs"
        f"{row['why']}."
        for row in transfers
        if row["ratio"] > 1.5
    ]
    return found or ["Nothing."]


def _wide_misses(each: Judged) -> list[str]:
    """Where only the wide question has several layouts, its figures meet the targets or do not."""
    wide, (_, pairs, regret) = each.row["wide"], each.split.targets
    found = []
    if pairs is not None and wide["pairwise"] is not None and wide["pairwise"] < pairs:
        found.append(f"{_percent(wide['pairwise'])} pairs in order, target {_percent(pairs)}")
    if regret is not None and wide["mean_regret"] > regret:
        found.append(f"{_percent(wide['mean_regret'])} mean regret, target {_percent(regret)}")
    return [f"{each.split.title}, per (model, devices, batch): {miss}." for miss in found]


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(cell) for cell in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main(*sys.argv[1:2])
