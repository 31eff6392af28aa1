"""Links: what NVLink, PCIe and network cards carry, by generation.

Rates are those that NCCL plans with, per device and direction, below the data sheet: what
collectives reach. Source: NVIDIA/nccl src/graph/topo.h and topo.cc (2.27), read there:

    NVLink, per link    compute capability 6.0: 18   7.0, 8.0: 20   8.6: 12   9.0: 20.6
                        10.0: 40.1 GB/s
    PCIe                lanes * GT/s / 10.67: 12 GB/s for x16 of generation 3, 24 for 4, 48 for 5
    between sockets     AMD 16, Intel 6 (10 Skylake, 22 Sapphire Rapids, 40 Emerald Rapids),
                        ARM 6, POWER9 32 GB/s

A network card carries 0.9 of its line rate (41 to 49 of 50 GB/s fitted on the nanotron H100
sweep). Latencies are the catalog's for such links: no topology says them.
"""

import re
from dataclasses import dataclass

from planner.spec import catalog
from planner.spec.cluster import Accelerator
from planner.spec.provenance import Provenance

GB = 1e9
NCCL = "NVIDIA/nccl src/graph/topo.h"
NVLINK_GENERATIONS = {1: 18.0, 2: 20.0, 3: 20.0, 4: 20.6, 5: 40.1}
"""GB/s per link and direction of each generation."""
GENERATION_OF = {60: 1, 70: 2, 80: 3, 90: 4, 100: 5, 103: 5}
"""NVLink generation by compute capability (times ten)."""
BRIDGED = {"a100-80-pcie": 3, "h100-pcie": 4}
"""NVLink generation of cards whose fabric is PCIe, and that bridges may join in pairs."""
PCIE_BESIDE = {2: 3, 3: 4, 4: 5, 5: 5}
"""PCIe generation of the devices of each NVLink generation."""
GRAPHICS_LINK = 12.0
"""GB/s per link of the cards of compute capability 8.6 (A40, A10, RTX)."""
PCIE_PER_LANE = 12.0 / (16 * 8.0)
"""GB/s per lane and GT/s: generation 3 has 8 GT/s and carries 12 GB/s over 16 lanes."""
GIGATRANSFERS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*GT/s")
WIRE_SHARE = 0.9
NVLINK_SECONDS, PCIE_SECONDS, NETWORK_SECONDS = 4e-6, 10e-6, 10e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes per second and direction, and where that is known from."""

    bytes_per_second: float
    source: str


def nvlink(capability: int, links: int) -> Rate | None:
    """The rate of a device with so many links in use; None for an unknown generation."""
    if capability == 86:
        each = GRAPHICS_LINK
    elif capability in GENERATION_OF:
        each = NVLINK_GENERATIONS[GENERATION_OF[capability]]
    else:
        return None
    return Rate(links * each * GB, f"{links} NVLinks of {each:g} GB/s ({NCCL}, sm{capability})")


def generation(accelerator: Accelerator) -> int | None:
    """The NVLink generation that the catalog says of a device, if it has any."""
    match = re.match(r"NVLink(\d)", accelerator.fabric)
    return int(match[1]) if match else BRIDGED.get(accelerator.name)


def nvlink_of(accelerator: Accelerator, links: int) -> Rate | None:
    """The rate of so many links of a device of the catalog; None where it has no NVLink."""
    number = generation(accelerator)
    if number is None:
        return None
    each = NVLINK_GENERATIONS[number]
    source = f"{links} NVLinks of {each:g} GB/s ({NCCL}, NVLink{number} of {accelerator.name})"
    return Rate(links * each * GB, source)


def pcie(speed: str, width: int) -> Rate | None:
    """The rate of a PCIe link (`16.0 GT/s PCIe`, 16 lanes); None where the text says nothing."""
    match = GIGATRANSFERS.match(speed)
    if match is None or width < 1 or not float(match[1]):
        return None
    rate = float(match[1]) * width * PCIE_PER_LANE
    return Rate(rate * GB, f"PCIe {match[1]} GT/s x{width}: {rate:g} GB/s ({NCCL})")


def pcie_of(accelerator: Accelerator) -> Rate | None:
    """The rate of the PCIe of a device of the catalog (16 lanes)."""
    match = re.match(r"PCIe(\d)", accelerator.fabric)
    number = int(match[1]) if match else PCIE_BESIDE.get(generation(accelerator) or 0)
    return pcie(f"{2.0**number} GT/s", 16) if number else None


def between_sockets(arch: str, vendor: str, model: int) -> Rate:
    """The rate between the sockets of a node."""
    if vendor == "AuthenticAMD":
        rate = 16.0
    elif vendor == "GenuineIntel":
        rate = {0x55: 10.0, 0x8F: 22.0, 0xCF: 40.0}.get(model, 6.0)
    else:
        rate = {"ppc64": 32.0}.get(arch, 6.0)
    return Rate(
        rate * GB,
        f"between sockets of {vendor or arch or 'an unknown CPU'}: {rate:g} GB/s ({NCCL})",
    )


def card(bytes_per_second: float, devices: float) -> Rate:
    """What each of the devices that share a network card (or several) gets of it."""
    each = WIRE_SHARE * bytes_per_second / devices
    source = (
        f"{bytes_per_second * 8 / GB:g} Gb/s of network cards over {devices:g} devices, times "
        f"{WIRE_SHARE} of the line rate (fitted on the nanotron H100 sweep)"
    )
    return Rate(each, source)


def latency(accelerator: Accelerator, place: str, usual: float) -> tuple[float, Provenance]:
    """Latency of the `fabric` or `network` that the catalog has for nodes of this device, else
    the usual one (also for places that the catalog does not know)."""
    for name in catalog.list_clusters():
        node = catalog.find_node(name)
        link = {"fabric": node.fabric, "network": node.network}.get(place)
        if link is not None and node.accelerator == accelerator.name:
            born = node.provenance.get(f"{place}.latency_seconds")
            text = f"catalog's node {name}" + (f": {born.source}" if born else "")
            return link.latency_seconds, Provenance(birth="assumed", source=text)
    return usual, Provenance(birth="assumed", source="typical of such links; no measurement")
