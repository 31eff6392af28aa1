"""Tables of a validation for people: time, order, memory and failures by source; reasons."""

from collections.abc import Callable, Mapping
from typing import Any

from reports.validation.validation import Validation
from reports.verdict import percent

Row = dict[str, Any]
ALL = "all"
BASELINES = {"constant": "constant", "flops_bubble": "bubble"}
"""A baseline and its heading: a constant FLOP/s, and FLOPs with the pipeline's bubble."""


def time_rows(validation: Validation) -> list[Row]:
    """Errors of the step time by source, the baselines beside ours."""
    return _rows(validation, _time_row)


def order_rows(validation: Validation) -> list[Row]:
    """Order and regret by source, where questions have several layouts."""
    return [row for row in _rows(validation, _order_row) if row["questions"]]


def memory_rows(validation: Validation) -> list[Row]:
    """Memory and failures by source, where a source tells either."""
    return [row for row in _rows(validation, _memory_row) if row["rows"] or row["failed"]]


def count_rows(counts: Mapping[str, int], heading: str) -> list[Row]:
    """Reasons or assumptions with how many rows have them."""
    return [{heading: text, "rows": number} for text, number in counts.items()]


def _rows(validation: Validation, row: Callable[[Row, Row], Row]) -> list[Row]:
    """A row per source, and one of all where there are several."""
    names: list[str | None] = [*validation.sources]
    names += [None] if len(names) != 1 else []
    return [
        {"source": name or ALL, **row(validation.counts(name), validation.metrics(name))}
        for name in names
    ]


def _time_row(counts: Row, metrics: Row) -> Row:
    time = metrics["time"]
    ours = {
        "rows": counts["timed"],
        "median |error|": _share(time["median_ape"]),
        "mean": _share(time["mean_ape"]),
        "p90": _share(time["p90_ape"]),
        "bias": _share(time["bias"], sign=True),
        "in band": _share(time["coverage"]),
    }
    return ours | _beside(metrics, {"median": "median_ape", "mean": "mean_ape"})


def _order_row(counts: Row, metrics: Row) -> Row:
    order = metrics["order"]
    ours = {
        "questions": order["groups"],
        "pairs in order": _share(order["pairwise"]),
        "mean regret": _share(order["mean_regret"]),
        "max": _share(order["max_regret"]),
    }
    return ours | _beside(metrics, {"pairs": "pairwise", "regret": "mean_regret"})


def _memory_row(counts: Row, metrics: Row) -> Row:
    memory, failures = metrics["memory"], metrics["feasibility"]
    return {
        "rows": counts["with_memory"],
        "median |error|": _share(memory["median_ape"]),
        "mean": _share(memory["mean_ape"]),
        "p90": _share(memory["p90_ape"]),
        "bias": _share(memory["bias"], sign=True),
        "below by 5 %": _share(memory["share_below"]),
        "above the safe side": _share(memory["share_unsafe"]),
        "chance to run out: failed": _share(failures["chance_failed"]),
        "ran": _share(failures["chance_ran"]),
        "failed": counts["failed"],
        "precision": _share(failures["precision"]),
        "recall": _share(failures["recall"]),
        "balanced accuracy": _share(failures["balanced_accuracy"]),
    }


def _beside(metrics: Row, columns: Mapping[str, str]) -> Row:
    return {
        f"{heading}: {column}": _share(metrics["baselines"][name][key])
        for name, heading in BASELINES.items()
        for column, key in columns.items()
    }


def _share(value: float | None, sign: bool = False) -> str:
    return "–" if value is None else percent(value, sign)
