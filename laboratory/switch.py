"""Switch: a network of namespaces whose packets this process delays and paces.

    python -m laboratory.switch '{"ranks": ..., "ways": ...}'      (root, Linux)

Every rank has a namespace with one TUN device (laboratory.namespaces); all other ends are here. A
packet from i to j takes

    start   when it comes, or when the last ports on its way are free, whichever is later
    sent    start + bytes / rate          the ports are taken until then
    there   sent + latency                then it is written to j's device

so links have any rate and latency, which the kernel's shapers alone cannot give (netem may be
missing). A packet that only acknowledges others waits for no port: behind the data of the other
direction it would come late, and both directions at once would sometimes take twice as long.
Packets are 60,000 bytes at most: the process moves 1 Gbit/s in some 2,000 packets.

It says `up` when the network is ready and runs until its standard input ends (its launcher has
ended, in whatever way) or a signal ends it; then the namespaces go. It goes before all ranks on the
machine's cores, where the system lets it: a link does not wait for its ends to stop computing. The
last moments before a packet is due are spun away: a process that sleeps wakes up late, up to a
millisecond where it has no priority.
"""

import contextlib
import heapq
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from laboratory import namespaces
from laboratory.namespaces import FIRST_ADDRESS

BURST = 16
"""Packets read from one device before the others have their turn; assumed."""
SPIN_SECONDS, URGENT_SPIN_SECONDS = 2e-4, 5e-5
"""How long before a packet is due the switch stops sleeping, without and with priority; assumed: a
timer's usual delay."""
PRIORITY = 10
"""Among real-time processes, of which there should be no other."""
TCP, ONLY_ACK = 6, 0x10
"""The protocol's number, and the flags of a segment that has no other."""
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals after which the namespaces go as at any other end."""


@dataclass(frozen=True, slots=True)
class Way:
    """From one rank to another: ports that are taken, rate and latency."""

    ports: tuple[str, ...]
    bytes_per_second: float
    latency_seconds: float


Packet = tuple[float, int, int, bytes]
"""When it is due, its number, its target, its bytes."""


@dataclass(slots=True)
class Switch:
    """Moves packets between devices. descriptors: by rank. ways: by source and target.
    spin_seconds: awake before a packet is due."""

    descriptors: list[int]
    ways: dict[tuple[int, int], Way]
    free: dict[str, float] = field(default_factory=dict)
    queue: list[Packet] = field(default_factory=list)
    number: int = 0
    spin_seconds: float = SPIN_SECONDS

    def run(self, stops: Sequence[int]) -> None:
        """Until one of the descriptors `stops` can be read."""
        sources = {descriptor: rank for rank, descriptor in enumerate(self.descriptors)}
        while True:
            ready, _, _ = select.select([*self.descriptors, *stops], [], [], self._patience())
            if not set(ready).isdisjoint(stops):
                return
            for descriptor in ready:
                self._read(sources[descriptor], descriptor)
            self._deliver()

    def _patience(self) -> float | None:
        if not self.queue:
            return None
        left = self.queue[0][0] - time.perf_counter()
        return max(0.0, left - self.spin_seconds)

    def _read(self, source: int, descriptor: int) -> None:
        for _ in range(BURST):
            try:
                packet = os.read(descriptor, 65_535)
            except BlockingIOError:
                return
            target = packet[19] - FIRST_ADDRESS if packet[0] >> 4 == 4 else -1
            way = self.ways.get((source, target))
            if way is not None:
                self._queue(way, target, packet)

    def _queue(self, way: Way, target: int, packet: bytes) -> None:
        sent = time.perf_counter()
        if not acknowledges(packet):
            start = max(sent, *(self.free.get(port, 0.0) for port in way.ports))
            sent = start + len(packet) / way.bytes_per_second
            for port in way.ports:
                self.free[port] = sent
        self.number += 1
        heapq.heappush(self.queue, (sent + way.latency_seconds, self.number, target, packet))

    def _deliver(self) -> None:
        while self.queue and self.queue[0][0] <= time.perf_counter():
            _, _, target, packet = heapq.heappop(self.queue)
            # a full device drops the packet, as a network would
            with contextlib.suppress(BlockingIOError):
                os.write(self.descriptors[target], packet)


def acknowledges(packet: bytes) -> bool:
    """Whether a packet of IPv4 is one of TCP that only acknowledges."""
    header = 4 * (packet[0] & 15)
    if packet[9] != TCP or len(packet) < header + 20:
        return False
    return packet[header + 13] == ONLY_ACK and len(packet) == header + 4 * (
        packet[header + 12] >> 4
    )


def _goes_first() -> bool:
    """Give this process priority; whether the system let it (some containers do not)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


def main() -> int:
    """Make the network, run, take it down; returns the exit code."""
    signalled = _noted_signals()
    spin = URGENT_SPIN_SECONDS if _goes_first() else SPIN_SECONDS
    spec = json.loads(sys.argv[1])
    try:
        with namespaces.made(spec["ranks"]) as devices:
            switch = Switch(devices, _ways(spec), spin_seconds=spin)
            sys.stdout.write("up\n")
            sys.stdout.flush()
            switch.run((sys.stdin.fileno(), signalled))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _ways(spec: dict[str, Any]) -> dict[tuple[int, int], Way]:
    return {
        (each["source"], each["target"]): Way(
            tuple(each["ports"]), each["bytes_per_second"], each["latency_seconds"]
        )
        for each in spec["ways"]
    }


def _noted_signals() -> int:
    """A descriptor that can be read once a signal wants the end: nothing is broken off midway."""
    reader, writer = os.pipe()
    for number in ENDING:
        signal.signal(number, lambda *_: os.write(writer, b"."))
    return reader


if __name__ == "__main__":
    sys.exit(main())
