"""The switch keeps rates and latencies: laws of its arithmetic."""

import itertools
import os
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laboratory import network
from laboratory.namespaces import FIRST_ADDRESS
from laboratory.switch import Switch, Way
from laboratory.topology import TOPOLOGIES, Topology

RATE = 1e6


def packet(target: int, size: int) -> bytes:
    header = bytearray(size)
    header[0], header[19] = 0x45, FIRST_ADDRESS + target
    return bytes(header)


@given(st.lists(st.integers(20, 60_000), min_size=1, max_size=9), st.floats(0.0, 0.1))
def test_packets_of_one_port_follow_each_other(sizes: list[int], latency: float) -> None:
    switch = Switch([], {(0, 1): Way(("a", "b"), RATE, latency)})
    before = time.perf_counter()
    for size in sizes:
        switch._queue(switch.ways[0, 1], 1, packet(1, size))
    due = sorted(each[0] for each in switch.queue)
    assert due[-1] >= before + sum(sizes) / RATE + latency
    for (first, second), size in zip(itertools.pairwise(due), sizes[1:], strict=True):
        assert second - first >= size / RATE * (1 - 1e-6) - 1e-9


def test_acknowledgements_pass_data() -> None:
    """They carry no byte; a segment with data waits its turn."""
    switch = Switch([], {(0, 1): Way(("a",), RATE, 0.0)})
    header = bytearray(packet(1, 52))
    header[9], header[20 + 12], header[20 + 13] = 6, 8 << 4, 0x10
    before = time.perf_counter()
    for each in (packet(1, 50_000), bytes(header), bytes(header) + b"x"):
        switch._queue(switch.ways[0, 1], 1, each)
    after = time.perf_counter()
    due = {len(each): moment for moment, _, _, each in switch.queue}
    assert before <= due[52] <= after
    assert before + 0.05 <= due[50_000] < due[53]


def test_ports_that_nothing_shares_run_at_once() -> None:
    ways = {(0, 1): Way(("a",), RATE, 0.0), (2, 3): Way(("b",), RATE, 0.0)}
    switch = Switch([], ways)
    before = time.perf_counter()
    for source, target in ways:
        switch._queue(ways[source, target], target, packet(target, 50_000))
    after = time.perf_counter()
    assert all(before <= each[0] - 0.05 <= after for each in switch.queue)


def test_it_moves_packets_in_order_and_ends() -> None:
    """Over sockets that keep packets apart, in place of devices."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (sender, first), (receiver, second) = pairs
    for end in (first, second):
        end.setblocking(False)
    stop_reader, stop_writer = os.pipe()
    latency = 0.01
    switch = Switch([first.fileno(), second.fileno()], {(0, 1): Way(("a",), RATE, latency)})
    runs = threading.Thread(target=switch.run, args=((stop_reader,),))
    runs.start()
    try:
        receiver.settimeout(60)
        sent = [packet(1, size) for size in (1000, 50, 7000)]
        begun = time.perf_counter()
        for each in (*sent, packet(7, 30)):  # nobody is rank 7
            sender.send(each)
        assert [receiver.recv(65_535) for _ in sent] == sent
        assert time.perf_counter() - begun >= sum(map(len, sent)) / RATE + latency
    finally:
        os.write(stop_writer, b".")
        runs.join(60)
        for end in (*pairs[0], *pairs[1]):
            end.close()
        os.close(stop_reader)
        os.close(stop_writer)
    assert not runs.is_alive()
    assert switch.queue == []


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda each: each.name)
def test_ways_follow_the_topology(topology: Topology) -> None:
    found = {(way["source"], way["target"]): way for way in network.ways(topology)}
    assert len(found) == topology.ranks * (topology.ranks - 1)
    for (source, target), way in found.items():
        link = topology.link(source, target)
        assert way["bytes_per_second"] == link.bandwidth_bytes_per_second
        assert way["latency_seconds"] == link.latency_seconds
        others = [other for other in found.values() if set(other["ports"]) & set(way["ports"])]
        assert all(other["bytes_per_second"] == way["bytes_per_second"] for other in others)


def test_an_uplink_is_shared_by_its_node() -> None:
    two = TOPOLOGIES[0]
    ports = {(way["source"], way["target"]): way["ports"] for way in network.ways(two)}
    assert ports[0, 2] == ports[1, 3]
    assert not set(ports[0, 1]) & set(ports[0, 2])
