"""nccl-tests, JSON: what the tests write with -J.

    args, config.{nthreads, ngpus, iterations, devices[{rank, group, hostname, device_info}]},
    results[{size, out_of_place{time, nwrong}, in_place{...}, ..._per_iter{times_us, cv_pct}}],
    out_of_bounds.okay

devices may stand beside config instead, and may name only the first rank of each process.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planner.spec.documents import InputError
from profiler.imports.fields import Fields
from profiler.imports.nccl_tests import (
    NAMED,
    QUARTILES,
    Device,
    Row,
    Run,
    host_times,
    outcome,
    wrong_values,
)
from profiler.imports.outcome import Outcome, Wanted
from profiler.imports.source import Source


def read(sources: Sequence[Source], wanted: Wanted) -> Outcome:
    """Import reports, one run each. Raises InputError."""
    return outcome(sources, [(s, _run(s)) for s in sources], wanted)


def _run(source: Source) -> Run:
    top = Fields(source.path, source.mapping())
    config = top.part("config")
    match = NAMED.search(str(top.data.get("args")))
    devices = _devices(config if "devices" in config else top)
    run = Run(test=match[1] if match else None, devices=devices, ranks=_ranks(config, devices))
    repeats = int(config.optional("iterations") or 1)
    repeats *= int(config.optional("aggregated_iterations") or 1)
    bounds = top.data.get("out_of_bounds")
    if isinstance(bounds, Mapping) and str(bounds.get("okay")).lower() == "false":
        raise wrong_values(source, "out_of_bounds", bounds.get("count"))
    for result in top.parts("results"):
        run.rows += _rows(source, result, repeats)
    if not run.rows:
        raise InputError(f"{source.path}: results: empty; was the run cut off?")
    return run


def _devices(owner: Fields) -> list[Device]:
    return [
        Device(
            rank=device.whole("rank", least=0),
            group=device.whole("group", least=0),
            host=device.text("hostname", "?"),
            name=device.text("device_info", ""),
        )
        for device in owner.parts("devices")
    ]


def _ranks(config: Fields, devices: Sequence[Device]) -> int:
    """Ranks of all groups. The list may name only the first rank of each process."""
    per_process = config.whole("nthreads") * config.whole("ngpus")
    ranks = [device.rank for device in devices]
    first_only = all(rank % per_process == 0 for rank in ranks)
    return max(ranks, default=0) + (per_process if first_only else 1)


def _rows(source: Source, result: Fields, repeats: int) -> Iterator[Row]:
    size = result.whole("size", least=0)
    repeats = int(result.optional("actual_iterations") or repeats)
    for name in ("out_of_place", "in_place"):
        if result.data.get(name) is None:
            continue
        half = result.part(name)
        if "cpu_time" in half:
            raise host_times(source, half.key)
        yield Row(
            place=half.key,
            size=size,
            in_place=name == "in_place",
            seconds=half.number("time", least=0) * 1e-6,
            wrong=half.optional("nwrong", least=0),
            spread=_spread(result, name),
            repeats=repeats,
        )


def _spread(result: Fields, name: str) -> float | None:
    """Interquartile range over the median of the single times, where they were kept."""
    if result.data.get(f"{name}_per_iter") is None:
        return None
    details = result.part(f"{name}_per_iter")
    times: Any = details.data.get("times_us")
    if not isinstance(times, list) or len(times) < 4:
        deviation = details.optional("cv_pct", least=0)
        return None if deviation is None else QUARTILES * deviation / 100
    numbers = [details.checked("times_us", value, 0) for value in times]
    low, middle, high = statistics.quantiles(numbers, n=4)
    return (high - low) / middle if middle else None
