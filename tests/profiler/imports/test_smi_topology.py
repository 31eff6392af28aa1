"""nvidia-smi topo -m: matrices of any shape, tabs or spaces, old and new drivers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from profiler.imports import smi_topology
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source
from tests.profiler.imports.cases import SAMPLES

H100 = (SAMPLES / "topo-h100.txt").read_text()
GB = 1e9


def matrix(devices: int, cards: int, cell, gap: str = "\t", ends: str = "CPU Affinity") -> str:
    """A text from cell(row, column); names of cards follow those of the devices."""
    names = [f"GPU{i}" for i in range(devices)] + [f"NIC{i}" for i in range(cards)]
    lines = [gap + gap.join([*names, ends])]
    for row, name in enumerate(names):
        cells = [" X " if row == column else cell(row, column) for column in range(len(names))]
        lines.append(gap.join([name, *cells, *(["0-31"] if row < devices else [])]))
    return "\n".join(lines) + "\n\nLegend:\n\n  X    = Self\n"


def imported(text: str, **options):
    source = Source(SAMPLES / "topo.txt", text)
    return smi_topology.read([source], Wanted(**{"accelerator": "h100-sxm", **options})).document


def refused(text: str, **options) -> str:
    with pytest.raises(InputError) as error:
        imported(text, **options)
    return str(error.value)


@given(
    st.integers(2, 16),
    st.integers(1, 16),
    st.sampled_from(["\t", "  ", "\t\t"]),
    st.sampled_from(
        ["CPU Affinity", "CPU Affinity\tNUMA Affinity\tGPU NUMA ID", "CPU Affinity  NUMA"]
    ),
    st.integers(2, 9),
)
def test_switched_nodes_of_any_size(devices, cards, gap, ends, nodes):
    text = matrix(devices, cards, lambda r, c: "NV18" if max(r, c) < devices else "NODE", gap, ends)
    cluster = imported(text, nodes=nodes, nic_bytes_per_second=50 * GB)
    assert (cluster.devices_per_node, cluster.nodes) == (devices, nodes)
    fabric, network = cluster.tiers
    assert fabric.bandwidth_bytes_per_second == pytest.approx(18 * 20.6 * GB)
    assert (fabric.devices, network.devices) == (devices, devices * nodes)
    assert network.bandwidth_bytes_per_second == pytest.approx(0.9 * 50 * GB * cards / devices)


@given(st.integers(1, 4).map(lambda n: 2 * n), st.sampled_from(["PIX", "PXB", "PHB"]))
def test_a_card_for_every_two_devices(devices, near):
    """The nearest card counts: two devices share it."""

    def cell(row: int, column: int) -> str:
        low, high = sorted((row, column))
        if high < devices:
            return "NV18"
        return near if low < devices and (high - devices) == low // 2 else "SYS"

    cluster = imported(matrix(devices, devices // 2, cell), nodes=2, nic_bytes_per_second=50 * GB)
    assert cluster.tiers[-1].bandwidth_bytes_per_second == pytest.approx(0.9 * 25 * GB)


@given(st.integers(1, 3), st.integers(2, 4))
def test_a_mesh_adds_its_links_up(each, devices):
    text = matrix(devices, 0, lambda r, c: f"NV{each}")
    tier = imported(text, accelerator="a100-80").tiers[0]
    assert tier.bandwidth_bytes_per_second == pytest.approx(each * (devices - 1) * 20 * GB)


def test_pairs_on_pcie_and_cards_without_nvlink():
    pairs = matrix(4, 0, lambda r, c: "NV12" if r // 2 == c // 2 else "SYS")
    found = [(t.name, t.devices) for t in imported(pairs, accelerator="a100-80-pcie").tiers]
    assert found == [("NVLink", 2), ("PCIe", 4)]
    plain = imported(matrix(4, 0, lambda r, c: "PHB"), accelerator="l40s")
    assert [(t.name, t.bandwidth_bytes_per_second) for t in plain.tiers] == [("PCIe", 24 * GB)]


def test_one_node_says_what_its_cards_need():
    made = smi_topology.read([Source(SAMPLES / "t.txt", H100)], Wanted(accelerator="h100-sxm"))
    assert [tier.name for tier in made.document.tiers] == ["NVLink"]
    assert "4 network cards count once you pass --nodes N and --nic-speed" in made.notes[0]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (H100, {"accelerator": None}, "pass --accelerator NAME, one of"),
        (H100, {"nodes": 2}, "how fast the network is; pass --nic-speed"),
        (H100, {"accelerator": "no-such"}, "no accelerator is called 'no-such'"),
        (H100, {"accelerator": "l40s"}, "how fast the NVLink is"),
        ("GPU0\t X \tNV1\n", {}, "no line of columns that begins with GPU0"),
        ("nothing\n", {}, "keep the whole output of `nvidia-smi topo -m`"),
        (H100[: H100.index("GPU5\tNV18")], {}, "no row for GPU5, GPU6, GPU7"),
        (H100.replace("GPU2\tNV18", "GPU2\tNVX", 1), {}, "GPU2 to GPU0: 'NVX' is no link"),
        (H100.replace("GPU2\tNV18", "GPU2\tNV9", 1), {}, "GPU0 to GPU2 is NV18, back it is NV9"),
        (
            matrix(3, 0, lambda r, c: "NV4" if max(r, c) < 2 else "SYS"),
            {},
            "NVLink joins 1 and 2 devices",
        ),
        (matrix(1, 1, lambda r, c: "NV4"), {}, "GPU0 to NIC0: 'NV4' joins no network card"),
        ("\tGPU0\tGPU1\nGPU0\t X \n", {}, "line 2: 1 links, there are 2 columns"),
    ],
)
def test_bad_matrices_are_refused(text, options, said):
    assert said in refused(text, **options)


def test_a_matrix_is_of_one_node():
    with pytest.raises(InputError, match="--nodes N"):
        smi_topology.read([Source(SAMPLES / f"{i}.txt", H100) for i in range(2)], Wanted())
