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

torch waits without end for the answer of a store that has taken the connection; here nothing takes
much longer than the timeout (executor.processes.deadline).

Ranks that do not find each other end with one line: where, how long, why, and the way out.
"""

import os
import socket
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from executor.processes.deadline import within
from planner.spec.documents import InputError

FIRST_SECONDS, LAST_SECONDS = 0.005, 0.5
"""How long a rank waits for an answer before it looks for a newer attempt: longer and longer.
Chosen: from the time of a message on one machine to what nobody who starts a job notices."""
PROBE_SECONDS = 0.05
"""From one look whether rank 0 is there yet to the next. Chosen: far less than torch's import."""
LATER_SECONDS = 5.0
"""How much later than torch a rank gives up, because torch's errors say more. Chosen."""
NAME = "meshwright/attempt"


AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""Set by torchrun where its agent, and not rank 0, serves the store."""


class NotMetError(Exception):
    """Ranks that did not find each other."""


def meet(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """The attempt's store, this process's rank, and how many there are.

    The environment says where. Raises NotMetError when others do not come in time, InputError for
    an address that is none.
    """
    (host, port), waited = _address(), f"within the timeout of {timeout.total_seconds():g} s"
    where = f"{host}:{port}"
    if not _serves():
        _reach(host, port, timeout, f"rank {os.environ['RANK']} reached nobody at {where} {waited}")
    limit = timeout.total_seconds() + LATER_SECONDS
    try:
        store, rank, ranks = within(limit, lambda: next(dist.rendezvous("env://", timeout=timeout)))
    except dist.DistError as error:
        raise NotMetError(_unmet(where, waited, error)) from None
    except TimeoutError:
        raise NotMetError(_silent(where, waited)) from None
    store.set_timeout(timeout)
    try:
        name = within(limit, lambda: agree(store, rank, ranks, timeout))
    except (dist.DistError, TimeoutError) as error:
        raise NotMetError(
            f"rank {rank} came to {where}, but not all others did {waited}: {_first_line(error)}; "
            f"start all {ranks} ranks at the same time, or wait longer with --timeout"
        ) from None
    return dist.PrefixStore(name, store), rank, ranks


def _address() -> tuple[str, int]:
    """Where the store is, as the environment says. Raises InputError."""
    for key, example in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")):
        if not os.environ.get(key):
            raise InputError(
                f"{key} is not set; give all ranks the address of rank 0's machine and a free "
                f"port of it ({key}={example}), or start them with torchrun"
            )
    port = os.environ["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InputError(f"MASTER_PORT is {port!r}, no port; give one from 1 to 65535")
    return os.environ["MASTER_ADDR"], int(port)


def _serves() -> bool:
    """Whether this rank serves the store: the first, unless torchrun's agent does."""
    return os.environ["RANK"] == "0" and os.environ.get(AGENT) != "True"


def _reach(host: str, port: int, timeout: timedelta, otherwise: str) -> None:
    """Wait until somebody listens there: if nobody does, torch prints the stack of its library.

    Raises NotMetError.
    """
    end = time.monotonic() + timeout.total_seconds()
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((host, port), timeout=left).close()
            return
        except OSError as error:
            cause = error.strerror or str(error)
        time.sleep(PROBE_SECONDS)
    raise NotMetError(
        f"{otherwise} ({cause}); start rank 0 there with the same MASTER_ADDR and MASTER_PORT, or "
        f"wait longer with --timeout"
    )


def _unmet(where: str, waited: str, error: dist.DistError) -> str:
    if not _serves():
        return (
            f"rank {os.environ['RANK']}: what listens at {where} is not, or no longer, where ranks "
            f"meet ({_first_line(error)}); correct MASTER_ADDR and MASTER_PORT, or start all again"
        )
    if isinstance(error, dist.DistNetworkError):
        return (
            f"rank 0 cannot serve at {where} ({_first_line(error)}); give all ranks this machine's "
            f"address as MASTER_ADDR and a free port of it as MASTER_PORT"
        )
    return (
        f"rank 0 waited at {where}, and not all {os.environ['WORLD_SIZE']} ranks came {waited} "
        f"({_first_line(error)}); start the others with the same MASTER_ADDR and MASTER_PORT, or "
        f"wait longer with --timeout"
    )


def _silent(where: str, waited: str) -> str:
    return (
        f"rank {os.environ['RANK']}: what listens at {where} takes connections and did not answer "
        f"{waited}; correct MASTER_ADDR and MASTER_PORT, or see whether rank 0 is stopped there"
    )


def unconnected(rank: int, error: RuntimeError) -> str:
    """What to say where ranks have met and do not reach each other directly."""
    device = os.environ.get("GLOO_SOCKET_IFNAME", "chosen by the host's name")
    return (
        f"rank {rank} met the others and could not connect to all of them ({_first_line(error)}); "
        f"give all ranks a network device that they share as GLOO_SOCKET_IFNAME (now: {device})"
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")


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
