"""The cluster of a measured run: the device that `gpu` names, its node design, and the links.

`gpu` is read by what it holds (`A100-SXM4-80GB`, `H100 SXM5`, `8xMI300X`). The node is the
catalog's design of that device with the row's gpus_per_node, or one made from the data sheet. An
`inter_node_link` that says a rate replaces the design's network:

    8x HDR IB 200Gb/s         8 cards of a node: 8 * 200 / gpus_per_node per device
    1600 Gbps RoCE node-node  of a node:         1600 / gpus_per_node
    HDR 200 Gb/s              InfiniBand, no count: one card per device (noted)

times NETWORK_SHARE (Omni-Path: OMNI_PATH_SHARE), what collectives reach of the line rate. An
`intra_node_link` that counts the NVLinks between two devices replaces the design's fabric where the
data sheet has more of them (V100 6, A100 12, H100 and B200 18):

    NVLink 4 inter-gpu connects    4 * 25 GB/s (NVLink5: 50), times FABRIC_SHARE
    NV4                            the same in the words of nvidia-smi topo

`NVLink4` is a generation and no count.

A job that needs several racks of one NVLink domain each takes as many devices of every rack, where
that divides evenly: schedulers give 64 of a rack's 72 to each (Slurm topology/block, --segment).
"""

import functools
import math
import re

from planner.spec import catalog
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import load
from planner.spec.node import Link, Node, make_cluster
from planner.spec.provenance import Provenance
from planner.spec.runs.run import Run
from planner.spec.runs.unusable import UnusableError

NETWORK_SHARE = 0.9
"""Of the line rate; as in the fit of the nanotron H100 sweep (41-49 of 50 GB/s)."""

OMNI_PATH_SHARE = 0.2
"""Of the line rate; fitted to the BLOOM log, the only runs with it, so that network_efficiency,
which calibrations take to other clusters, is about 1 (with NETWORK_SHARE it was 0.24)."""

OMNI_PATH = r"omni-?path|\bopa\b"

FABRIC_SHARE = 0.8
"""Of the data sheet's rate, where no design was measured: 366 of 450 GB/s on H200."""

DIE = "mi250x-gcd"
"""What ROCm and Slurm call a device of an MI250X."""

DEVICES = (
    (r"gb300", "gb300", ""),
    (r"gb200", "gb200", ""),
    (r"b300", "b300", ""),
    (r"b200", "b200", ""),
    (r"gh200", "h100-sxm", "as an H100 SXM of 80 GB"),
    (r"h200", "h200-sxm", ""),
    (r"b100\b", "b200", "as a B200, which has more FLOP/s"),
    (r"h800.*pcie", "h100-pcie", "as an H100 PCIe, which has more NVLink"),
    (r"h800", "h800", ""),
    (r"h20\b", "h20", ""),
    (r"h100.*pcie", "h100-pcie", ""),
    (r"h100.*nvl", "h100-sxm", "as an H100 SXM, which has more FLOP/s and NVLink"),
    (r"h100.*(96|hbm2e)", "h100-96-hbm2e", ""),
    (r"h100", "h100-sxm", ""),
    (r"a800.*40", "a100-40", "as an A100, which has more NVLink"),
    (r"a800.*pcie", "a100-80-pcie", "as an A100 PCIe"),
    (r"a800", "a800", ""),
    (r"(nd|standard nd) ?96 ?asr", "a100-40", ""),
    (r"(nd|standard nd) ?96 ?amsr", "a100-80", ""),
    (r"a100.*64", "a100-80", "as one of 80 GB"),
    (r"a100.*pcie.*40", "a100-80-pcie", "as one of 80 GB"),
    (r"a100.*pcie", "a100-80-pcie", ""),
    (r"a100.*40", "a100-40", ""),
    (r"a100.*80", "a100-80", ""),
    (r"a100", "a100-80", "40 or 80 GB unknown, 80 assumed"),
    (r"v100.*32", "v100-32", ""),
    (r"v100.*16", "v100-16", ""),
    (r"v100", "v100-16", "16 or 32 GB unknown, 16 assumed"),
    (r"l40s", "l40s", ""),
    (r"l40\b", "l40s", "as an L40S, which has more FLOP/s"),
    (r"(rtx ?)?6000 ?ada", "l40s", "as an L40S of the same silicon"),
    (r"(rtx ?)?5090", "rtx5090", ""),
    (r"(titan ?rtx|rtx ?titan)", "titan-rtx", ""),
    (r"a30\b", "a30", ""),
    (r"(rtx ?)?4090", "rtx4090", ""),
    (r"(rtx ?)?3090", "rtx3090", ""),
    (r"(rtx ?)?a6000", "rtx-a6000", ""),
    (r"a10g", "a10g", ""),
    (r"a10\b", "a10g", "as an A10G"),
    (r"a40\b", "a40", ""),
    (r"l4\b", "l4", ""),
    (r"t4\b", "t4", ""),
    (r"gaudi ?2|hl ?225", "gaudi2", ""),
    (r"gaudi ?3|hl ?325", "gaudi3", ""),
    (r"mi355x?", "mi355x", ""),
    (r"mi350x?", "mi355x", "as an MI355X, which has more FLOP/s"),
    (r"mi325x?", "mi325x", ""),
    (r"mi300x", "mi300x", ""),
    (r"mi300a", "mi300x", "as an MI300X, which has more FLOP/s and memory"),
    (r"mi300\b", "mi300x", "as an MI300X"),
    (r"mi210", DIE, "as a die of an MI250X, which has 6 % more FLOP/s"),
    (r"mi250x?", "mi250x", ""),
    (r"(tpu ?)?v5 ?p", "tpu-v5p", ""),
    (r"(tpu ?)?v5 ?(lite|e)", "tpu-v5e", ""),
    (r"((tpu ?)?v6 ?e|tpu ?v6\b|trillium)", "tpu-v6e", ""),
    (r"(tpu ?v?7x?|ironwood)", "tpu7x", ""),
    (r"tpu ?v4", "tpu-v4", ""),
    (r"tpu ?v3", "tpu-v3", ""),
    (r"v4\b( \d+)?$", "tpu-v4", ""),
    (r"v3\b( \d+)?$", "tpu-v3", ""),
    (r"(trainium ?2|trn2)", "trn2", ""),
    (r"(trainium ?1?\b|trn1n?)", "trn1", ""),
    (r"(ascend ?)?910 ?b", "ascend-910b", "variants have 280 to 376 TFLOP/s, 320 assumed"),
    (r"(ascend ?)910 ?a?\b", "ascend-910a", ""),
    (r"atlas (800t?|900) a2", "ascend-910b", "variants have 280 to 376 TFLOP/s, 320 assumed"),
    (r"p4de\b|a2 ultragpu", "a100-80", ""),
    (r"p3dn\b|dgx ?2\b", "v100-32", ""),
    (r"p3\b \d", "v100-16", ""),
    (r"g5\b \d", "a10g", ""),
    (r"p4d\b|a2 (high|mega)gpu", "a100-40", ""),
    (r"p5en?\b \d|a3 ultragpu", "h200-sxm", ""),
    (r"p5\b \d|a3 (high|mega|edge)gpu", "h100-sxm", ""),
    (r"a4 highgpu", "b200", ""),
)
"""Pattern, entry of the catalog, what the name leaves open; the last are instances of clouds."""

LINKS = re.compile(r"\bNV(\d+)\b|NVLink (\d+) inter-gpu", re.IGNORECASE)
"""How many NVLinks lie between two devices."""

WHOLE_RACKS = frozenset({"gb200", "gb300"})
TORI = frozenset({"tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu7x"})
"""Whose hosts are part of one fabric, so that a row's gpus_per_node says nothing of the links."""

CARDS = {"edr": 100.0, "hdr": 200.0, "ndr": 400.0, "xdr": 800.0, "omni-path": 100.0, "opa": 100.0}
"""Gb/s of one card by the name of its generation."""

OF_A_NODE = r"per[- ]node|/ ?node|node-node|efa|roce|ethernet|tcp"
BITS = {"gbps": 1e9 / 8, "gb/s": 1e9 / 8, "gbit/s": 1e9 / 8, "tbps": 1e12 / 8, "tb/s": 1e12 / 8}
NVLINK_BYTES_PER_SECOND = 25e9
NVLINK5_BYTES_PER_SECOND = 50e9
NVLINK5_SHEET = 900e9
"""One link and direction: data sheets (V100 150 GB/s by 6, A100 300 by 12, H100 450 by 18, B200 900
by 18)."""

UNSWITCHED = frozenset({"mi325x", "mi355x", "gaudi2", "gaudi3"})
"""Devices without a node design whose data sheets tell a link to each of the 7 others of a node and
no switch: 7 xGMI links; 21 Ethernet ports, 3 to each."""

FALLBACK_FABRIC_BYTES_PER_SECOND = 25e9
FALLBACK_NETWORK_BYTES_PER_SECOND = 25e9


def cluster_of(run: Run, devices: int) -> tuple[ClusterSpec, tuple[str, ...]]:
    """The cluster of a row and what was assumed. Raises UnusableError."""
    if run.gpu is None:
        raise UnusableError("gpu unknown")
    links = LINKS.search(run.intra_node_link or "")
    count = int(links[1] or links[2]) if links else None
    return _cluster(run.gpu, run.gpus_per_node, devices, run.inter_node_link, count)


@functools.lru_cache(maxsize=1024)
def _cluster(
    gpu: str, per_node: int | None, devices: int, link: str | None, nvlinks: int | None
) -> tuple[ClusterSpec, tuple[str, ...]]:
    accelerator, notes = accelerator_of(gpu, per_node)
    node, of_node = _node(accelerator)
    if accelerator.name in WHOLE_RACKS and per_node not in (None, node.devices_per_node):
        of_node = (*of_node, f"gpu: nodes of {per_node} in racks of {node.devices_per_node}")
    elif accelerator.name in TORI and per_node not in (None, node.devices_per_node):
        of_node = (*of_node, f"gpu: hosts of {per_node} in a torus, {node.devices_per_node} a node")
    elif per_node is not None:
        node = _of_size(node, per_node)
    elif devices > node.devices_per_node:
        of_node = (*of_node, f"gpus_per_node unknown, {node.devices_per_node} assumed")
    nodes = -(-devices // node.devices_per_node)
    if accelerator.name in WHOLE_RACKS and nodes > 1 and devices % nodes == 0:
        evenly = devices // nodes
        of_node = (*of_node, f"gpu: {evenly} devices of each rack, spread evenly")
        node = node.replace(devices_per_node=evenly)
    of_link: tuple[str, ...] = ()
    if nodes > 1 and link is not None:
        node, of_link = _with_link(node, link, per_node or node.devices_per_node)
    if nvlinks is not None:
        node = _with_nvlinks(node, nvlinks, accelerator)
    return make_cluster(node, accelerator, nodes), (*notes, *of_node, *of_link)


def accelerator_of(gpu: str, per_node: int | None = None) -> tuple[Accelerator, tuple[str, ...]]:
    """The catalog's device that a text means and what it leaves open. Raises UnusableError."""
    text = re.sub(r"[^a-z0-9]+", " ", gpu.lower())
    for pattern, name, open_ in DEVICES:
        if re.search(rf"(\b|\dx ?){pattern}", text):
            notes = (f"gpu {gpu}: {open_}",) if open_ else ()
            if name == "mi250x" and (per_node == 8 or "gcd" in text):
                return _accelerator(DIE), (*notes, f"gpu {gpu}: a device is one of the two dies")
            return _accelerator(name), notes
    raise UnusableError(f"no accelerator called {gpu}")


@functools.cache
def _accelerator(name: str) -> Accelerator:
    return catalog.find_accelerator(name)


def _node(accelerator: Accelerator) -> tuple[Node, tuple[str, ...]]:
    designs = {node.accelerator: node for node in _designs()}
    if accelerator.name in designs:
        return designs[accelerator.name], ()
    return _sheet_node(accelerator), (f"no node of {accelerator.name} known, links assumed",)


@functools.cache
def _designs() -> tuple[Node, ...]:
    folder = catalog.FOLDER / "clusters"
    return tuple(load(Node, folder / f"{name}.yaml") for name in catalog.list_clusters())


def _sheet_node(accelerator: Accelerator) -> Node:
    sheet = accelerator.fabric_bytes_per_second
    fabric = sheet * FABRIC_SHARE if sheet else FALLBACK_FABRIC_BYTES_PER_SECOND
    network = FALLBACK_NETWORK_BYTES_PER_SECOND * NETWORK_SHARE
    return Node(
        name=accelerator.name,
        accelerator=accelerator.name,
        devices_per_node=4 if accelerator.name == "mi250x" else 8,
        fabric=Link(
            name="fabric",
            bandwidth_bytes_per_second=fabric,
            latency_seconds=5e-6,
            pairwise=accelerator.name in UNSWITCHED,
        ),
        network=Link(name="network", bandwidth_bytes_per_second=network, latency_seconds=1e-5),
    )


def _of_size(node: Node, devices: int) -> Node:
    """A design with so many devices. Without a switch fewer devices have fewer links, and more than
    the design has are joined by one (the 16 V100 of a DGX-2)."""
    fabric, others = node.fabric, node.devices_per_node - 1
    if fabric.pairwise and devices > node.devices_per_node:
        fabric = fabric.replace(pairwise=False)
    elif fabric.pairwise and devices > 1:
        rate = fabric.bandwidth_bytes_per_second * (devices - 1) / others
        fabric = fabric.replace(bandwidth_bytes_per_second=rate)
    return node.replace(devices_per_node=devices, fabric=fabric)


def _with_link(node: Node, text: str, per_node: int) -> tuple[Node, tuple[str, ...]]:
    rate, note = device_rate(text, per_node)
    if rate is None:
        return node, (f"inter_node_link {text!r} says no rate, {node.network.name} assumed",)
    share = OMNI_PATH_SHARE if re.search(OMNI_PATH, text.lower()) else NETWORK_SHARE
    born = Provenance(birth="assumed", source=f"inter_node_link {text!r}, {share} of it")
    network = node.network.replace(name=text, bandwidth_bytes_per_second=rate * share)
    provenance = {**node.provenance, "network.bandwidth_bytes_per_second": born}
    return node.replace(network=network, provenance=provenance), note


def _with_nvlinks(node: Node, count: int, accelerator: Accelerator) -> Node:
    sheet = accelerator.fabric_bytes_per_second or 0.0
    rate = count * (NVLINK5_BYTES_PER_SECOND if sheet >= NVLINK5_SHEET else NVLINK_BYTES_PER_SECOND)
    if not 0 < rate < sheet:
        return node
    source = f"intra_node_link counts {count} NVLinks, {FABRIC_SHARE} of their rate"
    provenance = {
        **node.provenance,
        "fabric.bandwidth_bytes_per_second": Provenance(birth="assumed", source=source),
    }
    fabric = node.fabric.replace(bandwidth_bytes_per_second=rate * FABRIC_SHARE)
    return node.replace(fabric=fabric, provenance=provenance)


def device_rate(text: str, per_node: int) -> tuple[float | None, tuple[str, ...]]:
    """Bytes per second and device of a link's text, None if it says none; what was assumed."""
    rate = _card_rate(text)
    if not rate or re.search(r"\b0+\s*[x×]", text.lower()):
        return None, ()
    count = re.search(r"(\d+)\s*[x×]", text.lower())
    if count:
        cards = int(count[1])
        return (rate if _is_total(text, cards, rate) else cards * rate) / per_node, ()
    if re.search(r"per (gpu|device|accelerator)|/ ?gpu", text.lower()):
        return rate, ()
    if re.search(OF_A_NODE, text.lower()) or rate >= 100e9:
        return rate / per_node, ()
    return rate, (f"inter_node_link {text!r}: one such card per device assumed",)


def _is_total(text: str, cards: int, rate: float) -> bool:
    """Whether the rate in `4x HDR (800 Gb/s)` is that of all cards: as many times a card's."""
    of_a_card = (gbits * 1e9 / 8 for name, gbits in CARDS.items() if name in text.lower())
    return cards > 1 and any(math.isclose(rate, cards * each) for each in of_a_card)


def _card_rate(text: str) -> float | None:
    """Bytes per second of the rate in a text: `400 Gbps`, `25 GB/s`, or of the card's name."""
    if found := re.search(r"(\d+(?:\.\d+)?)\s*([GT])B(?:/s|ps)", text):
        return float(found[1]) * {"G": 1e9, "T": 1e12}[found[2]]
    if found := re.search(r"(\d+(?:\.\d+)?)\s*([gt](?:bps|b/s|bit/s))", text.lower()):
        return float(found[1]) * BITS[found[2].replace("tbit/s", "tbps")]
    if not re.search(r"\d+\s*[x×]", text):
        return None
    names = (gbits for name, gbits in CARDS.items() if name in text.lower())
    gbits = next(names, None)
    return None if gbits is None else gbits * 1e9 / 8
