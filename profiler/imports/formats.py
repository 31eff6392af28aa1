"""Formats: what can be imported, how a file's content shows its format, and who reads it."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from planner.spec import documents
from planner.spec.documents import InputError
from planner.spec.profile import Profile
from profiler.imports import (
    calculon,
    galvatron,
    kineto,
    nccl_json,
    nccl_text,
    nccl_topology,
    simumax,
    smi_topology,
    source,
)
from profiler.imports.outcome import Outcome, Wanted, as_target
from profiler.imports.source import Source

Reader = Callable[[Sequence[Source], Wanted], Outcome]

FORMATS = (
    "nccl-tests",
    "nccl-topology",
    "nvidia-smi-topo",
    "kineto",
    "calculon",
    "simumax",
    "galvatron",
)


def import_files(paths: Sequence[Path], wanted: Wanted, chosen: str | None = None) -> Outcome:
    """Import files of one format, the given one or that which their content shows.

    Raises InputError.
    """
    if chosen is not None and chosen not in FORMATS:
        raise InputError(f"import: {chosen!r} is no format; write one of {', '.join(FORMATS)}")
    if not paths:
        raise InputError("import: no file; write meshwright import [FORMAT] FILE...")
    return read_sources([source.read(path) for path in paths], wanted, chosen)


def read_sources(sources: Sequence[Source], wanted: Wanted, chosen: str | None = None) -> Outcome:
    """Import texts that were read already. Raises InputError."""
    formats = {chosen or _guess(each) for each in sources}
    if len(formats) > 1:
        where = ", ".join(str(each.path) for each in sources)
        raise InputError(
            f"{where}: of different formats ({', '.join(sorted(formats))}); import them apart"
        )
    where = ", ".join(str(each.path) for each in sources)
    reader = _reader(formats.pop(), sources[0])
    try:
        return as_target(reader(sources, wanted), wanted.target, where)
    except pydantic.ValidationError as error:  # numbers that are read and yet make no sense
        raise InputError(documents.explain(Profile, error, where)) from None


def split_words(words: Sequence[str]) -> tuple[str | None, list[Path]]:
    """`[FORMAT] FILE...` as the format, if there is one, and the files."""
    named = bool(words) and words[0] in FORMATS and not Path(words[0]).exists()
    return (words[0] if named else None), [Path(word) for word in words[named:]]


def _reader(chosen: str, first: Source) -> Reader:
    if chosen == "nccl-tests":
        return nccl_json.read if _is_json(first) else nccl_text.read
    if chosen == "calculon":
        return calculon.read_application if _is_application(first) else calculon.read_system
    if chosen == "simumax":
        return simumax.read_model if _is_model(first) else simumax.read_system
    readers: dict[str, Reader] = {
        "nccl-topology": nccl_topology.read,
        "nvidia-smi-topo": smi_topology.read,
        "kineto": kineto.read,
        "galvatron": galvatron.read,
    }
    return readers[chosen]


def _is_application(first: Source) -> bool:
    return "num_blocks" in first.mapping()


def _is_model(first: Source) -> bool:
    return "layer_num" in first.mapping()


def _is_json(each: Source) -> bool:
    """Whether the text begins as JSON does; mpirun begins lines with `[1,0]`."""
    return re.match(r"\s*(?:\{|\[\s*[{\]])", each.text) is not None


def _guess(each: Source) -> str:
    """The format that the content shows. Raises InputError."""
    if each.text.lstrip().startswith("<"):
        return "nccl-topology"
    found = _guess_json(each.json) if _is_json(each) else _guess_text(each.text)
    if found is None:
        raise InputError(
            f"{each.path}: no format that is known; name it (meshwright import FORMAT FILE), one "
            f"of {', '.join(FORMATS)}"
        )
    return found


def _guess_text(text: str) -> str | None:
    if "busbw" in text or "nccl-tests" in text or "_perf" in text:
        return "nccl-tests"
    return "nvidia-smi-topo" if "GPU0" in text else None


def _guess_json(data: Any) -> str | None:
    if isinstance(data, list):
        return "kineto" if any(isinstance(e, Mapping) and "ph" in e for e in data) else None
    keys = set(data)
    signs: dict[str, tuple[set[str], ...]] = {
        "kineto": ({"traceEvents"},),
        "nccl-tests": ({"results", "config"},),
        "calculon": (calculon.SYSTEM_KEYS, calculon.APPLICATION_KEYS),
        "simumax": (simumax.SYSTEM_KEYS, simumax.MODEL_KEYS),
    }
    for name, choices in signs.items():
        if any(choice <= keys for choice in choices):
            return name
    return "galvatron" if any(galvatron.KNOWN.match(key) for key in keys) else None
