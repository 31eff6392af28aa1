"""Attempt after attempt in one store, with ranks that come in any order and some that never do."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch import distributed as dist

from executor.processes import rank as rank_of_job
from executor.processes import rendezvous
from executor.processes.rendezvous import NotMetError, _unmet, agree, meet
from planner.spec.documents import InputError
from tests.executor.plans import make_plan

LONG, SHORT = timedelta(seconds=20), timedelta(seconds=0.1)


def test_every_attempt_agrees_on_a_name_of_its_own() -> None:
    store, names = dist.HashStore(), set[str]()
    for ranks, order in ((3, (2, 1, 0)), (3, (0, 1, 2)), (2, (1, 0)), (4, (3, 0, 2, 1))):
        with ThreadPoolExecutor() as threads:
            found = [threads.submit(agree, store, rank, ranks, LONG) for rank in order]
            (name,) = {each.result() for each in found}
        assert name not in names
        names.add(name)


def test_a_dead_attempt_is_not_joined() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor() as threads:
        for rank in (0, 1):
            threads.submit(agree, store, rank, 2, LONG)
    with pytest.raises(TimeoutError, match="rank 0 did not answer"):
        agree(store, 1, 2, SHORT)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """One that is taken and listens to nobody; the environment of a rank names it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for key, value in (place | {"MASTER_PORT": str(taken.getsockname()[1])}).items():
            monkeypatch.setenv(key, value)
        for key in ("MESHWRIGHT_RUN", "MESHWRIGHT_PARENT", "TORCHELASTIC_USE_AGENT_STORE"):
            monkeypatch.delenv(key, raising=False)
        yield taken


def test_nobody_at_the_other_end(port: socket.socket) -> None:
    where = f"127.0.0.1:{port.getsockname()[1]}"
    said = f"rank 1 reached nobody at {where} within the timeout of 0.1 s .*; start rank 0 there"
    with pytest.raises(NotMetError, match=said):
        meet(SHORT)


def test_another_at_the_other_end(port: socket.socket) -> None:
    """What torch then raises; it would try until the timeout, so it is not tried here."""
    said = _unmet("here:1", "in 1 s", dist.DistNetworkError("Ping failed.\nA stack"))
    assert said.startswith("rank 1: what listens at here:1 is not, or no longer,")
    assert "(Ping failed)" in said


def test_another_that_never_answers(port: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes connections for it; torch would wait for ever."""
    monkeypatch.setattr(rendezvous, "LATER_SECONDS", 0.1)
    port.listen()
    said = r"rank 1: what listens at .* takes connections and did not answer within the timeout"
    with pytest.raises(NotMetError, match=said):
        meet(SHORT)


def test_a_port_that_is_taken(port: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    port.listen()
    with pytest.raises(NotMetError, match=r"rank 0 cannot serve at .* a free port"):
        meet(SHORT)


def test_ranks_that_do_not_come(port: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    port.close()
    with pytest.raises(NotMetError, match=r"rank 0 waited at .*, and not all 2 ranks came"):
        meet(SHORT)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MASTER_ADDR", "", "MASTER_ADDR is not set"),
        ("MASTER_PORT", "70000", "MASTER_PORT is '70000', no port"),
    ],
)
def test_an_address_that_is_none(
    port: socket.socket, monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match=said):
        meet(SHORT)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("RANK", "first", "RANK is 'first'; it must be a number"),
        ("RANK", "2", "RANK is 2, of 2 ranks; give one from 0 to 1"),
        ("WORLD_SIZE", "-2", "WORLD_SIZE is '-2'; it must be a number"),
    ],
)
def test_a_place_that_is_none(
    port: socket.socket, monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match=said):
        rank_of_job.own_rank(make_plan("llama", dp=2), "executor", "meshwright run PLAN")


def test_a_rank_says_it_in_one_line(
    port: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    def work() -> int:
        meet(SHORT)
        return 0

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit) as ended:
        rank_of_job.finish(work)
    assert ended.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1
