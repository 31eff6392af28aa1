"""NCCL topology: trees of any shape give their links, islands and shares of network cards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import catalog
from planner.spec.documents import InputError
from profiler.imports import links, nccl_topology
from profiler.imports.outcome import Wanted
from profiler.imports.source import Source
from tests.profiler.imports.cases import SAMPLES, outcome

H100 = (SAMPLES / "h100-node.xml").read_text()
PAIRS = (SAMPLES / "a100-pairs.xml").read_text()


def gpu(index: int, sm: int, nvlinks: str, pci: str = "0x20b2") -> str:
    return (
        f'<pci busid="0000:{index:02x}:00.0" device="{pci}" link_speed="16.0 GT/s PCIe" '
        f'link_width="16"><gpu dev="{index}" sm="{sm}" rank="{index}">{nvlinks}</gpu></pci>'
    )


def nic(index: int, speed: int) -> str:
    return f'<nic><net name="mlx5_{index}" dev="{index}" speed="{speed}"/></nic>'


def system(*cpus: str) -> str:
    made = (f'<cpu numaid="{i}" vendor="AuthenticAMD">{text}</cpu>' for i, text in enumerate(cpus))
    return '<system version="1">' + "".join(made) + "</system>"


def imported(text: str, **options):
    source = Source(SAMPLES / "node.xml", text)
    return nccl_topology.read([source], Wanted(**options)).document


def refused(text: str, **options) -> str:
    with pytest.raises(InputError) as error:
        imported(text, **options)
    return str(error.value)


def tiers(cluster) -> dict[str, tuple[int, float]]:
    return {
        tier.name: (tier.devices, pytest.approx(tier.bandwidth_bytes_per_second / 1e9))
        for tier in cluster.tiers
    }


RATES = {60: 18.0, 70: 20.0, 80: 20.0, 86: 12.0, 90: 20.6, 100: 40.1}
switched = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(st.sampled_from(sorted(RATES)), st.integers(2, 16), switched, st.integers(2, 8))
def test_links_through_switches_add_up(sm, count, by_switch, nodes):
    nvlinks = "".join(
        f'<nvlink target="0000:f{i}:00.0" count="{n}" tclass="0x068000"/>'
        for i, n in enumerate(by_switch)
    )
    devices = "".join(gpu(i, sm, nvlinks) + nic(i, 200_000) for i in range(count))
    cluster = imported(system(devices), nodes=nodes, accelerator="a100-80")
    assert cluster.devices == nodes * count
    assert tiers(cluster) == {
        "NVLink": (count, sum(by_switch) * RATES[sm]),
        "network": (nodes * count, 0.9 * 25.0),
    }


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([25_000, 100_000, 400_000]))
def test_cards_are_shared_by_all_that_use_them(devices, cards, speed):
    """All below one CPU: every device uses every card, so each gets an equal part."""
    text = system(
        "".join(gpu(i, 80, "") for i in range(devices))
        + "".join(nic(i, speed) for i in range(cards))
    )
    cluster = imported(text, nodes=2)
    per_device = 0.9 * cards * speed * 1e6 / 8 / devices
    assert cluster.tiers[-1].bandwidth_bytes_per_second == pytest.approx(per_device)


def test_the_fastest_cards_count_and_of_those_the_nearest():
    """Two sockets with a fast card each; the slow card beside the devices is not used."""
    socket = gpu(0, 80, "") + nic(0, 25_000)
    one, other = socket + nic(1, 200_000), gpu(1, 80, "") + nic(2, 200_000)
    assert tiers(imported(system(one, other), nodes=2))["network"] == (4, 22.5)
    far = system(one, gpu(1, 80, ""))  # the device of the other socket shares the card
    assert tiers(imported(far, nodes=2))["network"] == (4, 11.25)


def test_the_users_speed_replaces_the_files():
    text = system(gpu(0, 80, "") + nic(0, 10_000))
    cluster = imported(text, nodes=2, nic_bytes_per_second=50e9)
    assert tiers(cluster)["network"] == (2, 45.0)


def test_a_known_node_is_what_the_catalog_says_of_it():
    """18 NVLinks and a 400 Gb/s card per H100: as measured on such nodes, within 2 %."""
    cluster, known = outcome("nccl-topology switch").document, catalog.find_cluster("h100-sxm:4")
    assert cluster.accelerator == known.accelerator
    for made, measured in zip(cluster.tiers, known.tiers, strict=True):
        assert made.devices == measured.devices
        assert made.latency_seconds == measured.latency_seconds
        assert made.bandwidth_bytes_per_second == pytest.approx(
            measured.bandwidth_bytes_per_second, rel=0.02
        )
    born = cluster.provenance["NVLink.bandwidth_bytes_per_second"]
    assert born.birth == "assumed"
    assert "h100-node.xml: 18 NVLinks of 20.6 GB/s" in born.source


def test_bridged_pairs_are_islands_on_pcie():
    """PCIe 4 carries 24 GB/s, the link between AMD sockets 16."""
    assert tiers(outcome("nccl-topology pairs").document) == {
        "NVLink": (2, 240.0),
        "PCIe": (4, 16.0),
        "network": (8, 0.9 * 12.5 / 4),
    }


@pytest.mark.parametrize(("sockets", "rate"), [(1, 24.0), (2, 16.0)])
def test_without_nvlink_pcie_joins_the_node(sockets, rate):
    parts = [gpu(0, 80, ""), gpu(1, 80, "")]
    text = system("".join(parts)) if sockets == 1 else system(*parts)
    assert tiers(imported(text)) == {"PCIe": (2, rate)}


@given(st.sampled_from([(3, 8.0, 12.0), (4, 16.0, 24.0), (5, 32.0, 48.0)]), st.integers(0, 4))
def test_pcie_rates_are_in_proportion(generation, halvings):
    _, speed, rate = generation
    width = 16 >> halvings
    assert links.pcie(f"{speed} GT/s PCIe", width).bytes_per_second == pytest.approx(
        rate * 1e9 * width / 16
    )


def test_what_one_node_leaves_out_is_said():
    made = nccl_topology.read([Source(SAMPLES / "n.xml", H100)], Wanted())
    assert "45 GB/s per device" in made.notes[0]
    assert "--nodes N" in made.notes[0]


def test_an_nvlink_domain_over_hosts_is_one_node():
    text = H100.replace('host_hash="0x1" numaid="1"', 'host_hash="0x2" numaid="1"')
    made = nccl_topology.read([Source(SAMPLES / "n.xml", text)], Wanted())
    assert made.document.devices_per_node == 8
    assert "2 hosts share one NVLink domain" in made.notes[0]


def test_a_single_device_is_a_cluster_too():
    cluster = imported(system(gpu(0, 80, "")))
    assert cluster.devices == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (H100[:900], "not valid XML"),
        ("<graphs/>", "outermost element is <graphs>"),
        ("<system/>", "no <gpu>"),
        (H100.replace('dev="3" sm="90"', 'dev="3" sm="hopper"'), "<gpu> sm='hopper'"),
        (H100.replace('count="5"', 'count=""'), "<nvlink> count=''"),
        (H100.replace('speed="400000"', 'speed="fast"'), "<net> speed='fast'"),
        (H100.replace("0x2330", "0xffff"), "pass --accelerator NAME, one of a100-40"),
        (H100.replace('speed="400000"', 'speed="0"').replace('"25000"', '"0"'), "--nic-speed"),
        (PAIRS.replace("<nvlink", "<nolink", 2), "NVLink joins 1 and 2 devices"),
    ],
)
def test_bad_topologies_are_refused(text, said):
    assert said in refused(text, nodes=2)


def test_a_dump_is_of_one_node():
    sources = [Source(SAMPLES / f"{i}.xml", H100) for i in range(2)]
    with pytest.raises(InputError, match="--nodes N"):
        nccl_topology.read(sources, Wanted())


def test_an_unknown_generation_takes_the_named_devices():
    text = system(
        "".join(gpu(i, 89, f'<nvlink target="0000:0{1 - i}:00.0" count="4"/>') for i in (0, 1))
    )
    assert tiers(imported(text, accelerator="a100-80")) == {"NVLink": (2, 80.0)}
    assert "how fast the NVLink is" in refused(text, accelerator="l40s")


def test_deep_trees_are_read():
    text = system("<pci>" * 3000 + gpu(0, 80, "") + "</pci>" * 3000)
    assert imported(text).devices == 1
