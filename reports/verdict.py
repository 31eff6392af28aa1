"""Verdict: the results of a question in a few sentences."""

from collections.abc import Sequence

from planner.spec.units import format_seconds
from reports.results import PlanResult, median_error


def verdict(results: Sequence[PlanResult]) -> tuple[str, ...]:
    """Sentences: the planner's choice and its error, the fastest plan, errors, memory, loss."""
    if not results:
        return ("There are no plans.",)
    choice = min(results, key=lambda r: r.predicted_seconds)
    ran = [result for result in results if result.measured is not None]
    if not ran:
        seconds = format_seconds(choice.predicted_seconds)
        return (f"The best plan is {choice.name}: {seconds} per step predicted, nothing measured.",)
    lines = [_choice(choice), _fastest(choice, ran), _errors(ran), _memory(ran), _losses(ran)]
    return tuple(line for line in lines if line)


def percent(value: float, sign: bool = True) -> str:
    """A fraction as percent with one decimal and a true minus sign."""
    return (f"{value:+.1%}" if sign else f"{value:.1%}").replace("-", "−")


def _choice(choice: PlanResult) -> str:
    predicted = format_seconds(choice.predicted_seconds)
    if choice.measured_seconds is None or choice.error is None:
        return f"The best plan is {choice.name}: {predicted} per step predicted, not measured."
    measured = format_seconds(choice.measured_seconds)
    return (
        f"The best plan is {choice.name}: {measured} per step measured, {predicted} predicted "
        f"({percent(choice.error)})."
    )


def _seconds(result: PlanResult) -> float:
    assert result.measured_seconds is not None
    return result.measured_seconds


def _fastest(choice: PlanResult, ran: list[PlanResult]) -> str:
    if len(ran) < 2:
        return ""
    fastest = min(ran, key=_seconds)
    if fastest is choice:
        return f"It is also the fastest of the {len(ran)} plans that ran."
    found = f"The fastest of the {len(ran)} plans that ran is {fastest.name}"
    if choice.measured_seconds is None:
        return f"{found}: {format_seconds(_seconds(fastest))} measured."
    lost = choice.measured_seconds / _seconds(fastest) - 1.0
    return f"{found}; the best plan takes {percent(lost, sign=False)} longer."


def _errors(ran: list[PlanResult]) -> str:
    errors = [result.error for result in ran if result.error is not None]
    middle = median_error(errors)
    if middle is None or len(errors) < 2:
        return ""
    worst = max(errors, key=abs)
    return (
        f"Step times are predicted with a median error of {percent(middle, sign=False)} "
        f"(largest {percent(worst)})."
    )


def _memory(ran: list[PlanResult]) -> str:
    known = [result for result in ran if result.memory_kept is not None]
    broken = [result.name for result in known if not result.memory_kept]
    if not known:
        return ""
    if not broken:
        return "No rank held more memory than predicted."
    return f"Ranks held more memory than predicted with {'; '.join(broken)}."


def _losses(ran: list[PlanResult]) -> str:
    checked = [r.loss_parity for r in ran if r.loss_parity is not None]
    if not checked:
        return ""
    return f"Losses differ from those of one rank by at most {max(checked):.1e} (relative)."
