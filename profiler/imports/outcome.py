"""Outcome: what an import makes, and what a user may add to what a file says."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planner.spec import units
from planner.spec.cluster import Accelerator, ClusterSpec
from planner.spec.documents import InputError
from planner.spec.model import ModelSpec
from planner.spec.profile import CollectiveSample, Machine, Profile
from planner.spec.provenance import Provenance
from profiler import fits
from profiler.imports.source import Source

Imported = Profile | ClusterSpec | Accelerator | ModelSpec
TARGETS: dict[str, type[Imported]] = {
    "profile": Profile,
    "cluster": ClusterSpec,
    "accelerator": Accelerator,
    "model": ModelSpec,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user says besides the files; None where the file or a default decides.

    accelerator: a name of the catalog. nic_bytes_per_second: of one network card. target: which
    document to make of a file that holds several.
    """

    nodes: int | None = None
    devices_per_node: int | None = None
    ranks: int | None = None
    accelerator: str | None = None
    nic_bytes_per_second: float | None = None
    op: str | None = None
    target: str | None = None
    vocab: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A document and what was left out or assumed on the way, for the user to read."""

    document: Imported
    notes: tuple[str, ...] = ()


def read_rate(option: str, text: str | None) -> float | None:
    """Bytes per second of `400Gb/s`. Raises InputError."""
    if text is None:
        return None
    try:
        rate = units.parse_bytes_per_second(text)
    except units.UnitError as error:
        raise InputError(f"{option}: {error}") from None
    if not 0 < rate < 1e15:
        raise InputError(f"{option}: {text!r} is no speed of a network card; write 400Gb/s")
    return rate


def read_target(text: str | None) -> str | None:
    """A kind of document. Raises InputError for one that no import makes."""
    if text is not None and text not in TARGETS:
        raise InputError(f"--as: {text!r} cannot be made; write one of {', '.join(TARGETS)}")
    return text


def as_target(outcome: Outcome, target: str | None, where: str) -> Outcome:
    """The document that the user asked for: a cluster holds its accelerator too.

    Raises InputError where the files make another one.
    """
    document = outcome.document
    if target == "accelerator" and isinstance(document, ClusterSpec):
        return Outcome(document.accelerator, outcome.notes)
    if target is not None and not isinstance(document, TARGETS[target]):
        raise InputError(
            f"--as {target}: {where} makes a {document.SCHEMA} document; leave out --as"
        )
    return outcome


def today() -> str:
    """The moment of the import, as profiles note it."""
    return datetime.datetime.now().isoformat(timespec="seconds")


def measured_by(tool: str, sources: Sequence[Source]) -> Provenance:
    """The birth certificate of numbers that a tool measured and wrote into files."""
    names = ", ".join(source.name for source in sources)
    return Provenance(birth="measured", source=f"{tool}: {names}")


def profile_of_collectives(
    machine: Machine, samples: Iterable[CollectiveSample], born: Provenance
) -> Profile:
    """A profile that holds collectives and their fits, nothing else."""
    kept = tuple(samples)
    return Profile(
        machine=machine,
        created=today(),
        collectives=kept,
        fits=fits.fit_all(kept),
        provenance=born,
    )
