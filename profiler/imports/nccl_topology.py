"""NCCL topology: the XML that NCCL writes to NCCL_TOPO_DUMP_FILE, of one node.

    system > cpu(numaid, arch, vendor, modelid) > pci(busid, device, link_speed, link_width) ...
        pci > gpu(dev, sm) > nvlink(target, count)          target: busid of a device or a switch
        pci or cpu > nic > net(name, speed in Mb/s)

NVLinks of a device are the sum of its counts. Devices that see the same switch (a target that is
no device here) or each other form an island. Each device uses the fastest network cards, and of
those the nearest: below the same PCIe switch, below the same CPU, elsewhere; cards that several
devices use are shared. A PCIe link between a device and the CPU is as fast as its slowest piece.
Pieces without a speed (virtual machines) say nothing.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from planner.spec.cluster import Accelerator
from planner.spec.documents import InputError
from profiler.imports import links, wiring
from profiler.imports.links import Rate
from profiler.imports.outcome import Outcome, Wanted
from profiler.imports.source import Source

Element = ET.Element

DEVICES = {
    "0x1db1": "v100-16",
    "0x1db5": "v100-32",
    "0x20b0": "a100-40",
    "0x20b2": "a100-80",
    "0x20b5": "a100-80-pcie",
    "0x2330": "h100-sxm",
    "0x2331": "h100-pcie",
    "0x2335": "h200-sxm",
    "0x2901": "b200",
    "0x26b9": "l40s",
    "0x2237": "a10g",
    "0x2684": "rtx4090",
}
"""PCI device ids of NVIDIA (the PCI ID repository), and the catalog's names."""


class Node(NamedTuple):
    """An element and the path of elements above it, outermost first."""

    element: Element
    above: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU of the file."""

    number: int
    capability: int
    busid: str
    pci_id: str
    nvlinks: tuple[tuple[str, int], ...]
    above: tuple[Element, ...]


def read(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import one dump. Raises InputError."""
    if len(sources) > 1:
        raise InputError(
            f"{sources[1].path}: a dump is of one node; give one file, and --nodes N for equal ones"
        )
    source = sources[0]
    tree = list(_walk(_root(source)))
    devices = _devices(source, tree)
    accelerator = wiring.find_accelerator(wanted, str(source.path), _recognised(devices))
    made = _wiring(source, tree, devices, wanted, accelerator)
    nodes = wanted.nodes or 1
    cluster = wiring.make_cluster(made, accelerator, nodes, f"{source.path.stem}:{nodes}")
    return Outcome(cluster, tuple(_notes(source, tree, made, nodes)))


def _notes(source: Source, tree: Sequence[Node], made: wiring.Wiring, nodes: int) -> Iterator[str]:
    hosts = {e.get("host_hash") for e, _ in tree if e.tag == "cpu" and e.get("host_hash")}
    if len(hosts) > 1:
        yield f"{source.path}: {len(hosts)} hosts share one NVLink domain; they count as one node"
    if nodes == 1 and made.network is not None:
        each = made.network.bytes_per_second / links.GB
        yield (
            f"{source.path}: one node; its network ({each:.3g} GB/s per device) counts once you "
            f"pass --nodes N"
        )


def _root(source: Source) -> Element:
    try:
        root = ET.fromstring(source.text)
    except ET.ParseError as error:
        line = error.position[0]
        raise InputError(
            f"{source.path}: line {line}: not valid XML: {error}; was the file cut off? dump it "
            f"again with NCCL_TOPO_DUMP_FILE"
        ) from None
    if root.tag != "system":
        raise InputError(
            f"{source.path}: the outermost element is <{root.tag}>, a topology of NCCL begins "
            f"with <system>; dump it with NCCL_TOPO_DUMP_FILE"
        )
    return root


def _walk(root: Element) -> Iterator[Node]:
    """Every element, each before those inside it."""
    ahead = [Node(root, ())]
    while ahead:
        node = ahead.pop()
        yield node
        above = (*node.above, node.element)
        ahead += [Node(child, above) for child in reversed(node.element)]


def _devices(source: Source, tree: Sequence[Node]) -> list[Device]:
    found = [_device(source, node) for node in tree if node.element.tag == "gpu"]
    if not found:
        raise InputError(
            f"{source.path}: no <gpu>; NCCL writes them when a job starts on GPUs, so dump the "
            f"topology from such a job"
        )
    return found


def _device(source: Source, node: Node) -> Device:
    slot = next((e for e in reversed(node.above) if e.tag == "pci"), None)
    return Device(
        number=_whole(source, node.element, "dev"),
        capability=_whole(source, node.element, "sm"),
        busid=_busid(slot.get("busid", "")) if slot is not None else "",
        pci_id=slot.get("device", "").lower() if slot is not None else "",
        nvlinks=tuple(
            (_busid(link.get("target", "")), _whole(source, link, "count"))
            for link in node.element.findall("nvlink")
        ),
        above=node.above,
    )


def _busid(text: str) -> str:
    """`0000:1b:00.0` and `0000:1B:00` are the same slot."""
    return text.lower().partition(".")[0]


def _whole(source: Source, element: Element, key: str) -> int:
    text = element.get(key, "")
    if not (text.isascii() and text.isdecimal()):
        raise InputError(
            f"{source.path}: <{element.tag}> {key}={text!r}: a whole number is needed; dump the "
            f"topology again with NCCL_TOPO_DUMP_FILE"
        )
    return int(text)


def _recognised(devices: Sequence[Device]) -> str | None:
    names = {DEVICES.get(device.pci_id) for device in devices}
    return names.pop() if len(names) == 1 else None


def _wiring(
    source: Source,
    tree: Sequence[Node],
    devices: Sequence[Device],
    wanted: Wanted,
    accelerator: Accelerator,
) -> wiring.Wiring:
    where = str(source.path)
    island = wiring.island_size(_joined(devices), range(len(devices)), where)
    return wiring.Wiring(
        where=source.name,
        devices=len(devices),
        island=island,
        nvlink=_nvlink(devices, accelerator) if island > 1 else None,
        pcie=_pcie(devices) or links.pcie_of(accelerator),
        network=_network(source, tree, devices, wanted),
    )


def _joined(devices: Sequence[Device]) -> Iterator[tuple[int, int]]:
    """Pairs of devices that NVLink joins, directly or through a switch."""
    place = {device.busid: index for index, device in enumerate(devices)}
    behind: dict[str, int] = {}
    for index, device in enumerate(devices):
        for target, count in device.nvlinks:
            if count:
                yield index, place.get(target, behind.setdefault(target, index))


def _nvlink(devices: Sequence[Device], accelerator: Accelerator) -> Rate | None:
    """The rate of the device with the fewest links."""
    fewest = min(sum(count for _, count in device.nvlinks) for device in devices)
    capability = devices[0].capability
    return links.nvlink(capability, fewest) or links.nvlink_of(accelerator, fewest)


def _pcie(devices: Sequence[Device]) -> Rate | None:
    pieces = [rate for device in devices for e in device.above if (rate := _piece(e)) is not None]
    if not pieces:
        return None
    cpus = {id(e): e for device in devices for e in device.above if e.tag == "cpu"}
    if len(cpus) > 1:
        pieces.append(_between(next(iter(cpus.values()))))
    return min(pieces, key=lambda rate: rate.bytes_per_second)


def _piece(element: Element) -> Rate | None:
    width = element.get("link_width", "")
    if element.tag != "pci" or not width.isdecimal():
        return None
    return links.pcie(element.get("link_speed", ""), int(width))


def _between(cpu: Element) -> Rate:
    model = cpu.get("modelid", "")
    number = int(model) if model.isdecimal() else -1
    return links.between_sockets(cpu.get("arch", ""), cpu.get("vendor", ""), number)


def _network(
    source: Source, tree: Sequence[Node], devices: Sequence[Device], wanted: Wanted
) -> Rate | None:
    """What the device that is served worst gets of the cards it uses."""
    cards = [node for node in tree if node.element.tag == "net"]
    if wanted.nic_bytes_per_second is not None:
        speeds = [wanted.nic_bytes_per_second] * len(cards)
    else:
        speeds = [_whole(source, card.element, "speed") * 1e6 / 8 for card in cards]
    if not any(speeds):
        return None
    uses = [_used(device, cards, speeds) for device in devices]
    users = [sum(index in used for used in uses) for index in range(len(cards))]
    shares = [sum(speeds[i] / users[i] for i in used) for used in uses]
    worst = min(range(len(uses)), key=lambda d: shares[d])
    total = sum(speeds[i] for i in uses[worst])
    return links.card(total, total / shares[worst])


def _used(device: Device, cards: Sequence[Node], speeds: Sequence[float]) -> list[int]:
    """The fastest cards, and of those the nearest."""
    ranked = [(-speeds[i], -_shared(device.above, card.above)) for i, card in enumerate(cards)]
    return [i for i, rank in enumerate(ranked) if rank == min(ranked)]


def _shared(one: tuple[Element, ...], other: tuple[Element, ...]) -> int:
    """How deep the place is where two paths part: 1 the system, 2 a CPU, more a PCIe switch."""
    return sum(a is b for a, b in zip(one, other, strict=False))
