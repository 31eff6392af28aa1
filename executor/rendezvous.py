"""Rendezvous: the ranks of one attempt find each other in a store that outlives attempts.

torchrun keeps one store for all its restarts, with the keys of ranks that are dead: a new rank that
reads an old address calls a port where nobody listens. Nothing in the environment numbers the
attempts alike on all nodes (TORCHELASTIC_RESTART_COUNT counts the failures of one node). So the
first rank draws a name for the attempt, under which all its keys stand, and the others make sure
that it is alive:

    rank 0    attempt := T, new;  for every r: T/answers/r/N := "" when T/asks/r = N is there
    rank r    N new;  T := attempt;  T/asks/r := N;  T it is if T/answers/r/N comes, else again

An old T is never answered: who drew it is gone. All ranks of an attempt have ended before torchrun
starts the next.
"""

import time
import uuid
from datetime import timedelta

import torch.distributed as dist

FIRST_SECONDS, LAST_SECONDS = 0.005, 0.5
"""How long a rank waits for an answer before it looks for a newer attempt: longer and longer."""
NAME = "meshwright/attempt"


def meet(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """The attempt's store, this process's rank, and how many there are.

    The environment says where. Raises when others do not come in time.
    """
    store, rank, ranks = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return dist.PrefixStore(agree(store, rank, ranks, timeout), store), rank, ranks


def agree(store: dist.Store, rank: int, ranks: int, timeout: timedelta) -> str:
    """The name of the attempt, the same on all its ranks and on no others."""
    return _name(store, ranks) if rank == 0 else _look_up(store, rank, timeout)


def _name(store: dist.Store, ranks: int) -> str:
    name = _new()
    store.set(NAME, name)
    for rank in range(1, ranks):
        asked = store.get(_asks(name, rank)).decode()
        store.set(_answers(name, rank, asked), "")
    return name


def _look_up(store: dist.Store, rank: int, timeout: timedelta) -> str:
    own, end, pause = _new(), time.monotonic() + timeout.total_seconds(), FIRST_SECONDS
    while time.monotonic() < end:
        name: str = store.get(NAME).decode()
        store.set(_asks(name, rank), own)
        time.sleep(pause)
        if store.check([_answers(name, rank, own)]):
            return name
        pause = min(2 * pause, LAST_SECONDS)
    raise TimeoutError(f"rank 0 did not answer within the timeout of {timeout.total_seconds():g} s")


def _new() -> str:
    return uuid.uuid4().hex


def _asks(name: str, rank: int) -> str:
    return f"{name}/asks/{rank}"


def _answers(name: str, rank: int, asked: str) -> str:
    return f"{name}/answers/{rank}/{asked}"
