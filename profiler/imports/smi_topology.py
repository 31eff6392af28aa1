"""nvidia-smi topo -m: the matrix of how the devices and network cards of one node are joined.

            GPU0  GPU1  NIC0  CPU Affinity  NUMA Affinity  GPU NUMA ID
    GPU0     X    NV18  PIX   0-55          0              N/A
    GPU1    NV18   X    SYS   ...
    NIC0    PIX   SYS    X

Cells, nearest first: NV# (# NVLinks), PIX and PXB (PCIe switches), PHB (through the CPU), NODE
(between PCIe roots of one socket), SYS (between sockets; SOC in old drivers). A legend follows,
and the names of the cards (NIC0: mlx5_0); older drivers put those names into the matrix itself.

The text does not say which device it is (--accelerator), nor the speed of the cards
(--nic-speed). In a mesh the NVLinks of a device are the sum of its row; where that is more than
a device has, switches join them and each number counts all. Each device uses the nearest cards.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planner.spec.cluster import Accelerator
from planner.spec.documents import InputError
from profiler.imports import links, wiring
from profiler.imports.links import Rate
from profiler.imports.outcome import Outcome, Wanted
from profiler.imports.source import Source

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
NVLINK = re.compile(r"NV(\d+)$")
NEAREST_FIRST = ("PIX", "PXB", "PHB", "NODE", "SYS")
CELL = re.compile(r"NV\d+|X|PIX|PXB|PHB|NODE|SYS|SOC")
MOST_PORTS = {1: 4, 2: 6, 3: 12, 4: 18, 5: 18}
"""NVLinks of one device, by generation."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The cells by (row, column) name; devices and cards in their order."""

    devices: tuple[str, ...]
    cards: tuple[str, ...]
    cells: dict[tuple[str, str], str]


def read(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import one matrix. Raises InputError."""
    if len(sources) > 1:
        raise InputError(
            f"{sources[1].path}: a matrix is of one node; give one file, and --nodes N for equal "
            f"nodes"
        )
    source = sources[0]
    matrix = _matrix(source)
    accelerator = wiring.find_accelerator(wanted, str(source.path), None)
    made = _wiring(source, matrix, accelerator, wanted)
    nodes = wanted.nodes or 1
    cluster = wiring.make_cluster(made, accelerator, nodes, f"{source.path.stem}:{nodes}")
    return Outcome(cluster, tuple(_notes(source, matrix, made, nodes)))


def _notes(source: Source, matrix: Matrix, made: wiring.Wiring, nodes: int) -> Iterator[str]:
    if nodes == 1 and matrix.cards:
        yield (
            f"{source.path}: one node; its {len(matrix.cards)} network cards count once you pass "
            f"--nodes N and --nic-speed"
        )
    if made.island < made.devices:
        yield f"{source.path}: does not say which PCIe this is; the catalog's device decides"


def _matrix(source: Source) -> Matrix:
    lines = [COLOURS.sub("", line) for line in source.text.splitlines()]
    start = next((i for i, line in enumerate(lines) if _is_header(line)), None)
    if start is None:
        raise InputError(
            f"{source.path}: no line of columns that begins with GPU0; keep the whole output of "
            f"`nvidia-smi topo -m`"
        )
    columns = _columns(lines[start])
    cells: dict[tuple[str, str], str] = {}
    for number, line in enumerate(lines[start + 1 :], start + 2):
        words = line.split()
        if not words:
            continue
        if words[0] not in columns:
            break
        cells |= _row(source, number, words, columns)
    devices = tuple(name for name in columns if re.fullmatch(r"GPU\d+", name))
    _check_complete(source, devices, columns, cells)
    return Matrix(devices, tuple(name for name in columns if name not in devices), cells)


def _is_header(line: str) -> bool:
    words = line.split()
    return words[:1] == ["GPU0"] and not CELL.fullmatch([*words, "-"][1])


def _columns(line: str) -> list[str]:
    """The names before `CPU Affinity`."""
    words = line.split()
    stop = next((i for i, w in enumerate(words) if w in ("CPU", "NUMA")), len(words))
    return words[:stop]


def _row(
    source: Source, number: int, words: Sequence[str], columns: Sequence[str]
) -> dict[tuple[str, str], str]:
    cells = words[1 : len(columns) + 1]
    for column, cell in zip(columns, cells, strict=False):
        if not CELL.fullmatch(cell):
            raise InputError(
                f"{source.path}: line {number}: {words[0]} to {column}: {cell!r} is no link "
                f"(X, NV#, PIX, PXB, PHB, NODE, SYS); keep the output of `nvidia-smi topo -m` as "
                f"it is"
            )
    if len(cells) < len(columns):
        raise InputError(
            f"{source.path}: line {number}: {len(cells)} links, there are {len(columns)} columns; "
            f"was a long line cut or wrapped?"
        )
    return {
        (words[0], c): "SYS" if cell == "SOC" else cell
        for c, cell in zip(columns, cells, strict=True)
    }


def _check_complete(
    source: Source,
    devices: Sequence[str],
    columns: Sequence[str],
    cells: dict[tuple[str, str], str],
) -> None:
    missing = [row for row in devices if (row, columns[0]) not in cells]
    if missing:
        raise InputError(
            f"{source.path}: no row for {', '.join(missing)}; keep the whole output of "
            f"`nvidia-smi topo -m`"
        )
    for one in devices:
        for card in columns:
            if card not in devices and cells[one, card] not in NEAREST_FIRST:
                raise InputError(
                    f"{source.path}: {one} to {card}: {cells[one, card]!r} joins no network card "
                    f"(PIX, PXB, PHB, NODE, SYS); are columns mixed up?"
                )
        for other in devices:
            if cells[one, other] != cells[other, one]:
                raise InputError(
                    f"{source.path}: {one} to {other} is {cells[one, other]}, back it is "
                    f"{cells[other, one]}; are rows of two machines mixed?"
                )


def _wiring(
    source: Source, matrix: Matrix, accelerator: Accelerator, wanted: Wanted
) -> wiring.Wiring:
    index = {name: i for i, name in enumerate(matrix.devices)}
    joined = [
        (index[one], index[other])
        for one in matrix.devices
        for other in matrix.devices
        if NVLINK.match(matrix.cells[one, other])
    ]
    island = wiring.island_size(joined, range(len(index)), str(source.path))
    return wiring.Wiring(
        where=source.name,
        devices=len(matrix.devices),
        island=island,
        nvlink=_nvlink(matrix, accelerator) if island > 1 else None,
        pcie=links.pcie_of(accelerator),
        network=_network(matrix, wanted),
    )


def _nvlink(matrix: Matrix, accelerator: Accelerator) -> Rate | None:
    """The rate of the device with the fewest links; None for a device without NVLink."""
    generation = links.generation(accelerator)
    if generation is None:
        return None
    fewest = min(_links(matrix, name, MOST_PORTS[generation]) for name in matrix.devices)
    return links.nvlink_of(accelerator, fewest)


def _links(matrix: Matrix, name: str, most: int) -> int:
    """NVLinks of a device: their sum in a mesh; through switches each number counts all."""
    row = [matrix.cells[name, other] for other in matrix.devices]
    counts = [int(match[1]) for cell in row if (match := NVLINK.match(cell))]
    return sum(counts) if sum(counts) <= most else max(counts)


def _network(matrix: Matrix, wanted: Wanted) -> Rate | None:
    """What the device that is served worst gets of the cards it uses."""
    if not matrix.cards or wanted.nic_bytes_per_second is None:
        return None
    uses = [_nearest(matrix, name) for name in matrix.devices]
    users = {card: sum(card in used for used in uses) for card in matrix.cards}
    shares = [sum(1 / users[card] for card in used) for used in uses]
    worst = min(range(len(uses)), key=lambda i: shares[i])
    total = len(uses[worst]) * wanted.nic_bytes_per_second
    return links.card(total, len(uses[worst]) / shares[worst])


def _nearest(matrix: Matrix, name: str) -> list[str]:
    ranks = {card: NEAREST_FIRST.index(matrix.cells[name, card]) for card in matrix.cards}
    return [card for card, rank in ranks.items() if rank == min(ranks.values())]
