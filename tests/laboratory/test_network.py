"""A real network of namespaces: what it takes, and that nothing of it stays, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from laboratory import namespaces, network
from laboratory.topology import Link, Topology
from planner.spec.documents import InputError
from planner.spec.profile import CollectiveSample
from profiler.collectives import CollectiveRequest, measure_collective
from profiler.team import Team

ROOT = Path(__file__).resolve().parents[2]
TWO = Topology("test", 2, 1, Link(1e8, 1e-4), Link(1e7, 5e-3))
SECONDS = 60
"""Far more than what is waited for takes."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(network.problem() is not None, reason=str(network.problem())),
]


def there(maker: int) -> set[str]:
    """The namespaces that a process has made."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    names = {line.split()[0] for line in listed.stdout.splitlines() if line}
    return names & {namespaces.name(maker, rank) for rank in range(TWO.ranks)}


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def a_switch() -> "subprocess.Popen[str]":
    """One whose network is up."""
    spec = json.dumps({"ranks": TWO.ranks, "ways": network.ways(TWO)})
    process = subprocess.Popen(
        [sys.executable, "-m", "laboratory.switch", spec],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert len(there(process.pid)) == 2
    return process


def test_a_network_of_namespaces() -> None:
    """A message takes what rate and latency say at least; the namespaces are gone afterwards."""
    request = CollectiveRequest("send_recv", 2, 1, 1 << 20)
    with network.joined(TWO), Team(2) as team:
        maker = int(os.environ[network.NETWORK].split("-")[1])
        assert len(there(maker)) == 2
        sample: CollectiveSample = measure_collective(request, team, 0.5)
    assert not there(maker)
    assert sample.seconds >= (1 << 20) / 1e7 + 5e-3 - 1e-3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_takes_the_network_down(number: signal.Signals) -> None:
    with a_switch() as process:
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        assert not there(process.pid)


def test_the_next_network_removes_what_a_killed_one_left() -> None:
    """And only that: another's stay, and so do names that are not ours."""
    other = f"not-{namespaces.PREFIX}-1-0"
    with a_switch() as killed, a_switch() as living:
        killed.kill()
        killed.wait(SECONDS)
        assert len(there(killed.pid)) == 2
        subprocess.run(["ip", "netns", "add", other], check=True)
        try:
            with network.joined(TWO):
                assert not there(killed.pid)
                assert len(there(living.pid)) == 2
        finally:
            subprocess.run(["ip", "netns", "delete", other], check=True)
        living.communicate(timeout=SECONDS)
        assert not there(living.pid)


LABORATORY = """
import sys, time
from laboratory import network
from laboratory.__main__ import end_on_sigterm
from profiler.team import Team
from tests.laboratory.test_network import TWO
end_on_sigterm()
with network.joined(TWO), Team(2) as team:
    print(network.os.environ[network.NETWORK].split("-")[1], team._process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_laboratory_that_is_ended(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LABORATORY],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        maker, workers = map(int, process.stdout.readline().split())
        assert len(there(maker)) == 2
        process.send_signal(number)
        process.wait(SECONDS)
    wait_for(lambda: not there(maker))
    wait_for(lambda: not Path(f"/proc/{workers}").exists())


def test_a_network_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    expected = r"the laboratory's network: .*'ip'"
    with pytest.raises(InputError, match=expected) as error, network.joined(TWO):
        raise AssertionError
    assert "Traceback" not in str(error.value)
