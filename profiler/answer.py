"""Answer: a profile as tables on stdout, and the progress of taking it on stderr."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from planner.spec import printing
from planner.spec.profile import OperatorSample, Profile
from planner.spec.units import format_bytes, format_seconds
from profiler import session


@contextlib.contextmanager
def progress() -> Iterator[session.Progress]:
    """A bar of the used budget on stderr; gives the callback that moves it."""
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting workers", total=1.0)

        def show(what: str, used: float) -> None:
            bar.update(task, description=what, completed=used)

        yield show


def remainder(profile: Profile) -> str:
    """What of provenance.source a user should read: what was continued, what is left out."""
    parts = profile.provenance.source.split("; ")
    return "".join(f"{each}\n" for each in parts if each.startswith(("continues", "left out")))


def print_profile(profile: Profile) -> None:
    """Print the machine, its operators and its links."""
    printing.print_table(machine_rows(profile), "machine")
    printing.print_table(operator_rows(profile), "operators (median)")
    printing.print_table(fit_rows(profile), "collectives: seconds = latency + bytes / bandwidth")


def machine_rows(profile: Profile) -> list[dict[str, object]]:
    """What the machine is and how it behaves as a whole."""
    machine = profile.machine
    bandwidth = profile.memory_bandwidth_bytes_per_second
    facts = {
        "device": machine.accelerator or machine.processor,
        "cores": machine.cores or None,
        "memory": format_bytes(machine.memory_bytes) if machine.memory_bytes else None,
        "torch": machine.torch,
        "busy ranks": profile.busy_ranks,
        "slowdown": ", ".join(f"{count}: {factor:.2f}" for count, factor in profile.slowdown),
        "composition": ", ".join(f"{k} {v:.3f}" for k, v in profile.composition.items()),
        "memory bandwidth": f"{format_bytes(bandwidth)}/s" if bandwidth else None,
        "source": profile.provenance.source,
    }
    return [{"fact": name, "value": value} for name, value in facts.items()]


def operator_rows(profile: Profile) -> list[dict[str, object]]:
    """One row per operator, its phases side by side."""
    rows: dict[object, dict[str, object]] = {}
    for sample in profile.operators:
        row = rows.setdefault(sample.key[:3], _operator_row(sample))
        row[sample.phase] = format_seconds(sample.seconds)
        row["spread"] = max(float(str(row["spread"])), round(sample.spread or 0.0, 3))
        row["repeats"] = sample.repeats
    return list(rows.values())


def _operator_row(sample: OperatorSample) -> dict[str, object]:
    dims = " ".join(f"{name}={value}" for name, value in sample.dims.items())
    row: dict[str, object] = {"kind": sample.kind, "dims": dims, "dtype": sample.dtype}
    return row | {"forward": "", "backward": "", "spread": 0.0, "repeats": 0}


def fit_rows(profile: Profile) -> list[dict[str, object]]:
    """One row per fit."""
    return [
        {
            "op": fit.op,
            "backend": fit.backend,
            "ranks": fit.ranks,
            "groups": fit.groups,
            "latency": format_seconds(fit.latency_seconds),
            "bandwidth": f"{format_bytes(fit.bandwidth_bytes_per_second)}/s",
            "median error": f"{100 * fit.median_error:.0f} %",
        }
        for fit in profile.fits
    ]
