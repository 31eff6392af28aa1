"""The study of how the cost of planning grows: with devices, and with layers.

make scaling       (python -m reports.planning.scaling [FOLDER] [devices|layers ...])

Each question is planned once in a process of its own (reports.planning.problems.effort), CPU
seconds of the search. Devices: llama3.1-8b on 8 to 131,072 H100, eight sequences of 8,192 tokens
per device and step. Layers: the same model with 8 to 1,024 layers on 1,024 H100, 1,024 sequences.
The numbers are kept in FOLDER/planning-cost.csv, so that the curves may be measured one by one;
the figure is FOLDER/figures/planning-cost.svg, and the tables stand between two marks of
FOLDER/search.md.
"""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from planner.spec import catalog
from planner.spec.documents import write_text
from planner.spec.model import ModelSpec
from reports.figures.canvas import dress, new_row
from reports.figures.validation import write_figure
from reports.planning.problems import Problem, effort

MODEL = "llama3.1-8b"
DEVICES = (8, 32, 128, 512, 2048, 8192, 32768, 131072)
LAYERS = (8, 16, 32, 64, 128, 256, 512, 1024)
PER_DEVICE = 8
"""Sequences."""
NODES = 128
BEGIN, END = "<!-- planning-cost -->\n", "<!-- /planning-cost -->\n"
KEPT = "planning-cost.csv"


@dataclass(frozen=True, slots=True)
class Cost:
    """What planning one question took. curve: devices or layers; size: how many."""

    curve: str
    size: int
    cpu_seconds: float
    choices: int
    solved: int
    peak_mib: float
    gap: float
    plan: str


def deep(layers: int) -> ModelSpec:
    """The model with so many layers."""
    model = catalog.find_model(MODEL)
    stack = model.main.replace(order=(0,) * layers)
    return model.replace(name=f"{MODEL}, {layers} layers", stacks=(stack,))


def problem(curve: str, size: int) -> Problem:
    """The question at one point of a curve."""
    if curve == "layers":
        return Problem(deep(size), f"h100-sxm:{NODES}", 8192, 8 * NODES)
    return Problem(MODEL, f"h100-sxm:{size // 8}", 8192, PER_DEVICE * size)


def measured(curve: str, size: int) -> Cost:
    """One point."""
    took = effort(problem(curve, size))
    return Cost(
        curve,
        size,
        round(took.cpu_seconds, 2),
        took.enumerated,
        took.solved,
        round(took.peak_bytes / 2**20),
        took.gap,
        took.plan.partition(" stages=")[0],
    )


def read(folder: Path) -> dict[str, list[Cost]]:
    """The kept curves."""
    path = folder / KEPT
    rows = list(csv.DictReader(io.StringIO(path.read_text()))) if path.exists() else []
    found: dict[str, list[Cost]] = {}
    for row in rows:
        numbers = float(row["cpu_seconds"]), int(row["choices"]), int(row["solved"])
        cost = Cost(
            row["curve"],
            int(row["size"]),
            *numbers,
            float(row["peak_mib"]),
            float(row["gap"]),
            row["plan"],
        )
        found.setdefault(cost.curve, []).append(cost)
    return found


def keep(curves: dict[str, list[Cost]], folder: Path) -> None:
    """Write the curves' numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Cost))
    writer.writerows(astuple(cost) for name in sorted(curves) for cost in curves[name])
    write_text(folder / KEPT, text.getvalue())


def main(folder: str = "docs", *asked: str) -> None:
    """Measure curves (all, or those named) and write everything."""
    place, sizes = Path(folder), {"devices": DEVICES, "layers": LAYERS}
    curves = read(place)
    for name in asked or sizes:
        curves[name] = [measured(name, size) for size in sizes[name]]
    keep(curves, place)
    write_figure(plot(curves), place / "figures" / "planning-cost.svg")
    document = (place / "search.md").read_text()
    head, _, rest = document.partition(BEGIN)
    write_text(place / "search.md", head + BEGIN + tables(curves) + END + rest.partition(END)[2])


def tables(curves: dict[str, list[Cost]]) -> str:
    """Both tables in Markdown."""
    return "\n".join(_table(name, curves[name]) for name in sorted(curves))


def _table(name: str, costs: Sequence[Cost]) -> str:
    head = f"| {name} | CPU s | choices | solved | peak | gap | plan found |\n|" + "---|" * 7
    rows = [
        f"| {c.size:,} | {c.cpu_seconds:.2f} | {c.choices:,} | {c.solved:,} | "
        f"{c.peak_mib:.0f} MiB | {c.gap:.2%} | {c.plan} |"
        for c in costs
    ]
    return "\n".join([head, *rows]) + "\n"


def plot(curves: dict[str, list[Cost]]) -> Axes:
    """CPU seconds over devices and over layers, on logarithmic axes."""
    axes = new_row(8.4, 3.2, len(curves))
    for ax, (name, costs) in zip(axes, sorted(curves.items()), strict=True):
        sizes = [cost.size for cost in costs]
        ax.plot(sizes, [cost.cpu_seconds for cost in costs], "o-", color="#0072B2", markersize=4)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45, ha="right")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        dress(ax, f"planning time over {name}", name, "CPU seconds", "both")
    return axes[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
