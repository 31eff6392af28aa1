"""The machine a profile is taken on, and the conditions under which its ranks run."""

import ctypes
import os
import platform
import socket
from pathlib import Path

import torch

from planner.spec.profile import Machine

CGROUP = Path("/sys/fs/cgroup")
CPU_INFO = Path("/proc/cpuinfo")
NETWORK = "MESHWRIGHT_NETWORK"
"""Environment variable: namespace (with {rank}), address of rank 0 and device of a network of its
own, which the ranks of a run live in (`laboratory`)."""
CLONE_NEWNET = 0x40000000


def describe() -> Machine:
    """This machine: processor, cores and memory that this process may use, accelerators."""
    accelerators = torch.cuda.device_count() if torch.cuda.is_available() else 0
    properties = torch.cuda.get_device_properties(0) if accelerators else None
    return Machine(
        kind="cuda" if accelerators else "cpu",
        processor=processor(),
        cores=cores(),
        memory_bytes=memory_bytes(),
        accelerator=properties.name if properties else None,
        accelerators=accelerators,
        accelerator_memory_bytes=float(properties.total_memory) if properties else None,
        operating_system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        cuda=str(torch.version.cuda or "") if accelerators else "",
        nccl=_nccl() if accelerators else "",
    )


def differences(one: Machine, other: Machine) -> list[str]:
    """What two machines differ in, in words; empty when they are the same."""
    return [
        f"{name} {getattr(one, name)!r}, here {getattr(other, name)!r}"
        for name in Machine.model_fields
        if getattr(one, name) != getattr(other, name)
    ]


def _nccl() -> str:
    """Version of NCCL, empty where torch has none."""
    if not torch.distributed.is_nccl_available():
        return ""
    return ".".join(map(str, torch.cuda.nccl.version()))


def rank_environment(device: str = "cpu") -> dict[str, str]:
    """Environment variables that every rank is started with, here and in the executor.

    One thread per rank on a CPU. glibc gives freed memory back to the system and faults it in
    again in the next step; keeping it makes steps some percent faster and far more even.
    """
    settings = {"PYTHONUNBUFFERED": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    if device == "cpu":
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        settings |= dict.fromkeys(names, "1")
        settings |= {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_MAX_": "0"}
        settings |= {"MALLOC_TOP_PAD_": str(64 << 20)}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback and "GLOO_SOCKET_IFNAME" not in os.environ:
        settings["GLOO_SOCKET_IFNAME"] = loopback
    return settings


def enter_network(rank: int) -> None:
    """Move this process to its rank's network, if the ranks have one. Call it before any thread
    is started: only the calling one moves."""
    if NETWORK not in os.environ:
        return
    name, address, device = os.environ[NETWORK].format(rank=rank).split(",")
    with (Path("/run/netns") / name).open("rb") as namespace:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")
    os.environ |= {"MASTER_ADDR": address, "GLOO_SOCKET_IFNAME": device}


def processor() -> str:
    """The processor's model name; its architecture where the system does not say more."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model", "Processor", "cpu model"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """Cores this process may run on: its affinity, or its cgroup's quota if that is less."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(allowed, int(quota)) if quota else allowed)


def memory_bytes() -> float:
    """Memory of the machine, or this process's cgroup limit if that is less."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limits = (_number(CGROUP / "memory.max"), _number(CGROUP / "memory/memory.limit_in_bytes"))
    return min([total, *(limit for limit in limits if limit)])


def _quota() -> float | None:
    words = _words(CGROUP / "cpu.max")
    if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():
        return max(1.0, int(words[0]) / int(words[1]))
    quota = _number(CGROUP / "cpu/cpu.cfs_quota_us")
    period = _number(CGROUP / "cpu/cpu.cfs_period_us")
    return max(1.0, quota / period) if quota and period else None


def _number(path: Path) -> float | None:
    words = _words(path)
    return float(words[0]) if words and words[0].isdecimal() and int(words[0]) else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []
