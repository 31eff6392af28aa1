"""The tasks by name."""

import difflib

from executor.training.language import Language
from executor.training.tags import Tags
from executor.training.task import Task
from executor.training.translation import Translation
from planner.spec.documents import InputError
from planner.spec.plan import Plan

TASKS = {kind.name: kind for kind in (Language, Tags, Translation)}


def check(name: str, plan: Plan) -> None:
    """Raise InputError unless the task exists and the plan's model can learn it."""
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(TASKS)}"
        raise InputError(f"--task: {name!r} is unknown; {hint}")
    TASKS[name].check(plan)


def make(name: str, plan: Plan, seed: int) -> Task:
    """The task for a plan. Raises InputError."""
    check(name, plan)
    return TASKS[name](plan, seed)
