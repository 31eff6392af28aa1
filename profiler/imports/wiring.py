"""Wiring: how a node's devices are joined, and the cluster that such nodes make.

An island is a set of devices that NVLink joins, directly or through switches. With islands
smaller than the node, PCIe and the link between the sockets join the rest:

    one island, the whole node        tier NVLink (N devices)
    islands of k < N devices          tier NVLink (k), tier PCIe (N)
    no NVLink                         tier PCIe (N)
    nodes > 1                         and the network over all nodes

A ring passes each PCIe link and the link between the sockets once per direction, so the PCIe
tier has the slower of them. Each device gets an equal part of the network cards it shares.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planner.spec import catalog
from planner.spec.cluster import Accelerator, ClusterSpec, Tier
from planner.spec.documents import InputError
from planner.spec.provenance import Provenance
from profiler.imports import links
from profiler.imports.links import Rate
from profiler.imports.outcome import Wanted


@dataclass(frozen=True, slots=True)
class Wiring:
    """One node. island: devices that NVLink joins, 1 without NVLink. network: per device; None
    where the file shows no network card. where: the file, for messages."""

    where: str
    devices: int
    island: int
    nvlink: Rate | None
    pcie: Rate | None
    network: Rate | None


def find_accelerator(wanted: Wanted, where: str, recognised: str | None) -> Accelerator:
    """The device that the user names, else the one recognised. Raises InputError."""
    name = wanted.accelerator or recognised
    if name is None:
        raise InputError(
            f"{where}: does not say which device the node has; pass --accelerator NAME, one of "
            f"{', '.join(catalog.list_accelerators())}, or the path of an accelerator/1 document"
        )
    return catalog.find_accelerator(name)


def island_size(joined: Iterable[tuple[int, int]], devices: Sequence[int], where: str) -> int:
    """Devices per island, from pairs of joined devices. Raises InputError for unequal islands."""
    island = {device: {device} for device in devices}
    for one, other in joined:
        merged = island[one] | island[other]
        island.update(dict.fromkeys(merged, merged))
    sizes = {len(members) for members in island.values()}
    if len(sizes) > 1:
        raise InputError(
            f"{where}: NVLink joins {' and '.join(map(str, sorted(sizes)))} devices; only islands "
            f"of one size can be described; write the cluster/1 document by hand"
        )
    return sizes.pop()


def make_cluster(wiring: Wiring, accelerator: Accelerator, nodes: int, name: str) -> ClusterSpec:
    """A cluster of so many such nodes. Raises InputError where a tier has no rate."""
    tiers: list[Tier] = []
    born: dict[str, Provenance] = {}
    for tier, rate, place, usual in _tiers(wiring, nodes):
        seconds, source = links.latency(accelerator, place, usual)
        tiers.append(
            Tier(
                name=tier[0],
                devices=tier[1],
                bandwidth_bytes_per_second=rate.bytes_per_second,
                latency_seconds=seconds,
            )
        )
        born[f"{tier[0]}.bandwidth_bytes_per_second"] = Provenance(
            birth="assumed", source=f"{wiring.where}: {rate.source}"
        )
        born[f"{tier[0]}.latency_seconds"] = source
    born["devices_per_node"] = Provenance(birth="measured", source=wiring.where)
    return ClusterSpec(
        name=name,
        accelerator=accelerator,
        nodes=nodes,
        devices_per_node=wiring.devices,
        tiers=tuple(tiers),
        provenance=born,
    )


def _tiers(wiring: Wiring, nodes: int) -> Iterable[tuple[tuple[str, int], Rate, str, float]]:
    """(name, devices), rate, the catalog's word for the latency, the usual latency."""
    if wiring.island > 1:
        rate = _known(
            wiring.nvlink, wiring, "NVLink", "pass --accelerator with a device that has it"
        )
        yield ("NVLink", wiring.island), rate, "fabric", links.NVLINK_SECONDS
    if wiring.island < wiring.devices:
        rate = _known(wiring.pcie, wiring, "PCIe", "pass --accelerator with a device on PCIe")
        place = "none" if wiring.island > 1 else "fabric"
        yield ("PCIe", wiring.devices), rate, place, links.PCIE_SECONDS
    elif wiring.devices == 1:
        yield ("device", 1), Rate(links.GB, "a single device sends nothing"), "none", 0.0
    if nodes > 1:
        rate = _known(wiring.network, wiring, "network", "pass --nic-speed 400Gb/s (of one card)")
        yield ("network", nodes * wiring.devices), rate, "network", links.NETWORK_SECONDS


def _known(rate: Rate | None, wiring: Wiring, what: str, way_out: str) -> Rate:
    if rate is None:
        raise InputError(f"{wiring.where}: does not say how fast the {what} is; {way_out}")
    return rate
