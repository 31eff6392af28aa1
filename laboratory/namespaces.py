"""Namespaces: one per rank with a TUN device in it, and no longer there than their maker.

    name      meshwright-PID-RANK in /run/netns, where PID made it
    owned     its maker holds a lock (flock) on the namespace's file; the kernel lets go of it when
              the process ends, however that comes about
    removed   by its maker at the end; where that was killed, by the next one that makes any: what
              is called so and locked by nobody is nobody's

Namespaces are made, and those of nobody removed, under one lock: one that is made but not locked
yet is not mistaken for one whose maker is dead. (The folder itself is locked by `ip`.) A device
needs no such care: it goes with the process that holds its other end. Nor do ranks: they end with
their launcher.
"""

import contextlib
import fcntl
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/run/netns")
LOCK = Path("/run/meshwright-laboratory.lock")
PREFIX = "meshwright"
OURS = re.compile(rf"{PREFIX}-\d+-\d+")
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 60_000
"""Assumed: near the 65,535 that a packet can have, so that there are few of them."""
FIRST_ADDRESS = 10
NETWORK = "10.77.0"
DEVICE = "lab0"


def address(rank: int) -> str:
    """The address of a rank."""
    return f"{NETWORK}.{FIRST_ADDRESS + rank}"


def name(maker: int, rank: int | str) -> str:
    """The name of a rank's namespace. maker: a process id."""
    return f"{PREFIX}-{maker}-{rank}"


@contextlib.contextmanager
def made(ranks: int) -> Iterator[list[int]]:
    """This process's namespaces, while a block runs; gives the other ends of their devices.

    Raises OSError or CalledProcessError where the machine does not let them be made.
    """
    names = [name(os.getpid(), rank) for rank in range(ranks)]
    with contextlib.ExitStack() as stack:
        for each in names:
            stack.callback(_remove, each)
        with _alone():
            remove_unowned()
            ends = [_make(each, rank, stack) for rank, each in enumerate(names)]
        yield ends


def remove_unowned() -> None:
    """Remove what makers that were killed have left; call it under the lock."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        if OURS.fullmatch(path.name) and _is_unowned(path):
            _remove(path.name)


def _is_unowned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or removed meanwhile
        return False
    return True


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No other process makes namespaces of ours while the block runs."""
    with LOCK.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(own: str, rank: int, stack: contextlib.ExitStack) -> int:
    """A namespace with a TUN device; returns its other end."""
    _ip("netns", "add", own)
    fcntl.flock(stack.enter_context((FOLDER / own).open("rb")), fcntl.LOCK_EX)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    stack.callback(os.close, descriptor)
    outside = f"mw{os.getpid()}t{rank}"
    request = struct.pack("16sH22x", outside.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, request)
    _ip("link", "set", outside, "netns", own)
    _ip("-n", own, "link", "set", outside, "name", DEVICE)
    _ip("-n", own, "addr", "add", f"{address(rank)}/24", "dev", DEVICE)
    _ip("-n", own, "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "10000", "up")
    _ip("-n", own, "link", "set", "lo", "up")
    # a link that was silent between two steps must not begin slowly again
    _ip(*("netns", "exec", own, "sysctl", "-qw", "net.ipv4.tcp_slow_start_after_idle=0"))
    return descriptor


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


def _remove(own: str) -> None:
    """Where it is; a second remover may have been faster."""
    quiet = subprocess.DEVNULL
    subprocess.run(["ip", "netns", "delete", own], check=False, stdout=quiet, stderr=quiet)
