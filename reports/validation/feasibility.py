"""Feasibility: does `at risk` tell the runs that failed from those that ran?

A run that failed is a positive, a prediction at risk says positive.

    precision = failed among those at risk     recall = at risk among the failed
    balanced accuracy = (recall + share of the runs that ran and are not at risk) / 2

chance_failed, chance_ran: the mean probability to run out that was predicted for the runs that
failed and for those that ran.

Only sources that report a failure count: in the others, nobody looked for it.
"""

from collections.abc import Sequence
from typing import Any

from reports.validation.outcome import Outcome


def feasibility_metrics(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """None where a source reports no failures, or nothing but failures."""
    telling = {outcome.source for outcome in outcomes if outcome.failed}
    known = [outcome for outcome in outcomes if outcome.source in telling]
    failed = [outcome.predicted.at_risk for outcome in known if outcome.failed]
    ran = [outcome.predicted.at_risk for outcome in known if not outcome.failed]
    recall, alarms = _share(failed), _share(ran)
    flagged = sum(failed) + sum(ran)
    balanced = None if recall is None or alarms is None else (recall + 1.0 - alarms) / 2.0
    return {
        "precision": sum(failed) / flagged if flagged else None,
        "recall": recall,
        "balanced_accuracy": balanced,
        "chance_failed": _chance(known, True),
        "chance_ran": _chance(known, False),
    }


def _chance(known: Sequence[Outcome], failed: bool) -> float | None:
    chances = [o.predicted.run_out_probability for o in known if o.failed is failed]
    told = [chance for chance in chances if chance is not None]
    return sum(told) / len(told) if told else None


def _share(flags: list[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
