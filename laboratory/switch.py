"""Switch: a network of namespaces whose packets this process delays and paces.

    python -m laboratory.switch '{"prefix": ..., "links": ...}'      (root, Linux)

Every rank has a namespace with one TUN device; all other ends are here. A packet from i to j takes

    start   when it comes, or when the last ports on its way are free, whichever is later
    sent    start + bytes / rate          the ports are taken until then
    there   sent + latency                then it is written to j's device

so links have any rate and latency, which the kernel's shapers alone cannot give (netem may be
missing). A packet that only acknowledges others waits for no port: behind the data of the other
direction it would come late, and both directions at once would sometimes take twice as long.
Packets are 60,000 bytes at most: the process moves 1 Gbit/s in some 2,000 packets.

It says `up` when the network is ready and runs until its standard input ends; then it deletes the
namespaces. It goes before all ranks on the machine's cores, where the system lets it: a link does
not wait for its ends to stop computing. The last moments before a packet is due are spun away: a
process that sleeps wakes up late, up to a millisecond where it has no priority.
"""

import contextlib
import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 60_000
"""Assumed: near the 65,535 that a packet can have, so that there are few of them."""
BURST = 16
"""Packets read from one device before the others have their turn; assumed."""
SPIN_SECONDS, URGENT_SPIN_SECONDS = 2e-4, 5e-5
"""How long before a packet is due the switch stops sleeping, without and with priority; assumed: a
timer's usual delay."""
PRIORITY = 10
"""Among real-time processes, of which there should be no other."""
TCP, ONLY_ACK = 6, 0x10
"""The protocol's number, and the flags of a segment that has no other."""
FIRST_ADDRESS = 10
NETWORK = "10.77.0"
DEVICE = "lab0"


def address(rank: int) -> str:
    """The address of a rank."""
    return f"{NETWORK}.{FIRST_ADDRESS + rank}"


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

    def run(self, stop: int) -> None:
        """Until the descriptor `stop` can be read."""
        sources = {descriptor: rank for rank, descriptor in enumerate(self.descriptors)}
        while True:
            ready, _, _ = select.select([*self.descriptors, stop], [], [], self._patience())
            if stop in ready:
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


def namespace(prefix: str, rank: int) -> str:
    """The name of a rank's namespace."""
    return f"{prefix}-{rank}"


def _make(prefix: str, rank: int) -> int:
    """A namespace with a TUN device; returns its other end."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    outside = f"{prefix[-8:]}t{rank}"
    request = struct.pack("16sH22x", outside.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, request)
    name = namespace(prefix, rank)
    _ip("netns", "add", name)
    _ip("link", "set", outside, "netns", name)
    _ip("-n", name, "link", "set", outside, "name", DEVICE)
    _ip("-n", name, "addr", "add", f"{address(rank)}/24", "dev", DEVICE)
    _ip("-n", name, "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "10000", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    # a link that was silent between two steps must not begin slowly again
    _ip(*("netns", "exec", name, "sysctl", "-qw", "net.ipv4.tcp_slow_start_after_idle=0"))
    return descriptor


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


def _goes_first() -> bool:
    """Give this process priority; whether the system let it (some containers do not)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


def main() -> None:
    """Make the network, run, take it down."""
    spin = URGENT_SPIN_SECONDS if _goes_first() else SPIN_SECONDS
    spec = json.loads(sys.argv[1])
    prefix, ranks = spec["prefix"], spec["ranks"]
    ways = {
        (each["source"], each["target"]): Way(
            tuple(each["ports"]), each["bytes_per_second"], each["latency_seconds"]
        )
        for each in spec["ways"]
    }
    try:
        devices = [_make(prefix, rank) for rank in range(ranks)]
        switch = Switch(devices, ways, spin_seconds=spin)
        sys.stdout.write("up\n")
        sys.stdout.flush()
        switch.run(sys.stdin.fileno())
    finally:
        for rank in range(ranks):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", namespace(prefix, rank))


if __name__ == "__main__":
    main()
