"""Job: ranks that were told different things do not begin.

Where ranks are started one by one (torchrun on several nodes) each reads its own plan and options.
Ranks of different plans end in aborts of the library at best, and train something else at worst. So
they compare, in the store where they met, what decides what they compute:

    rank 0    told := what it was told;  reads how the others' differs;  verdict := the first
    rank r    reads told, says how its own differs;  reads the verdict

All of them end with it, if there is one.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist

from planner.spec.documents import InputError
from planner.spec.plan import Plan

PARTS = {"model", "workload", "runtime", "layout", "stages"}
"""Of a plan: what decides what is computed. The rest is where it came from."""
LOCAL = {"output", "tensorboard", "module", "timeout_seconds", "backend"}
"""Options that each machine may have its own of."""
TOLD, VERDICT = "told", "verdict"


def told(plan: Plan, options: Any) -> dict[str, str]:
    """What a rank was told, by key. options: a dataclass."""
    chosen = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in LOCAL
    }
    parts = plan.model_dump(mode="json", include=PARTS)
    return dict(_leaves("plan", parts)) | dict(_leaves("options", chosen))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(f"{key}.{name}", each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(f"{key}.{index}", each)
    else:
        yield key, str(value)


def check_alike(store: dist.Store, rank: int, ranks: int, own: dict[str, str]) -> None:
    """Raise InputError, on every rank, where one was told something else than the first."""
    if rank == 0:
        store.set(TOLD, json.dumps(own))
        found = (store.get(_answer(other)).decode() for other in range(1, ranks))
        store.set(VERDICT, next(filter(None, list(found)), ""))
    else:
        first: dict[str, str] = json.loads(store.get(TOLD))
        store.set(_answer(rank), _difference(rank, own, first))
    if verdict := store.get(VERDICT).decode():
        raise InputError(verdict)


def _difference(rank: int, own: dict[str, str], first: dict[str, str]) -> str:
    for key in [*first, *own]:
        if own.get(key) != first.get(key):
            return (
                f"rank {rank} was started with {key}={own.get(key)}, rank 0 with "
                f"{first.get(key)}; give all ranks the same plan and options"
            )
    return ""


def _answer(rank: int) -> str:
    return f"differs/{rank}"
