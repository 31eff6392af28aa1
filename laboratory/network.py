"""Network: the switch of a topology, up as long as a block runs, and how processes enter it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from laboratory import namespaces
from laboratory.topology import Topology
from planner.spec.documents import InputError
from profiler.machine import NETWORK

ROOT = Path(__file__).resolve().parent.parent
END_SECONDS = 30
"""Assumed: far more than a switch needs to take its namespaces down."""


def problem() -> str | None:
    """Why this machine cannot have such a network, or None if it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root; run it with sudo"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun does not exist; load the module tun"
    try:
        subprocess.run(["ip", "netns", "list"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "`ip netns` does not work; install iproute2"
    return None


@contextlib.contextmanager
def joined(topology: Topology) -> Iterator[None]:
    """Processes that are started in the block live in the topology, rank by rank.

    Raises InputError where the network cannot be made.
    """
    spec = {"ranks": topology.ranks, "ways": ways(topology)}
    process = subprocess.Popen(
        [sys.executable, "-m", "laboratory.switch", json.dumps(spec)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C is for this process, which ends the switch
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        if process.stdout.readline().strip() != "up":
            error = process.stderr.read().strip()
            raise InputError(f"the laboratory's network: {error or 'it did not start'}")
        name = namespaces.name(process.pid, "{rank}")
        os.environ[NETWORK] = f"{name},{namespaces.address(0)},{namespaces.DEVICE}"
        yield
    finally:
        os.environ.pop(NETWORK, None)
        _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """The end of its input ends the switch, which takes the namespaces down."""
    try:
        process.communicate(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:  # the next network that is made removes what it leaves
        process.kill()
        process.communicate()


def ways(topology: Topology) -> list[dict[str, Any]]:
    """From every rank to every other: what the switch does with a packet."""
    return [
        {
            "source": source,
            "target": target,
            "ports": _ports(topology, source, target),
            "bytes_per_second": topology.link(source, target).bandwidth_bytes_per_second,
            "latency_seconds": topology.link(source, target).latency_seconds,
        }
        for source in range(topology.ranks)
        for target in range(topology.ranks)
        if source != target
    ]


def _ports(topology: Topology, source: int, target: int) -> list[str]:
    nodes = topology.node(source), topology.node(target)
    if nodes[0] == nodes[1]:
        return [f"rank {source} sends", f"rank {target} receives"]
    if topology.shared_uplink:
        return [f"node {nodes[0]} sends", f"node {nodes[1]} receives"]
    return [f"rank {source} sends out", f"rank {target} receives from outside"]
