"""Merge: imported measurements added to a profile that is there already.

The newer one of two measurements of the same thing stays; fits are made anew over all samples.
"""

from planner.spec.documents import InputError
from planner.spec.profile import Machine, Profile
from planner.spec.provenance import Provenance
from profiler import fits
from profiler.imports.outcome import Imported


def into(base: Profile, imported: Imported, where: str) -> Profile:
    """The profile `base` with what was imported. Raises InputError for other machines."""
    if not isinstance(imported, Profile):
        raise InputError(
            f"--into {where}: the import makes a {imported.SCHEMA} document, no profile; leave "
            f"out --into"
        )
    collectives = {s.key: s for s in (*base.collectives, *imported.collectives)}
    operators = {sample.key: sample for sample in (*base.operators, *imported.operators)}
    return base.replace(
        machine=_machine(base.machine, imported.machine, where),
        collectives=tuple(collectives.values()),
        operators=tuple(operators.values()),
        fits=fits.fit_all(collectives.values()),
        layers=imported.layers or base.layers,
        layer_memory=imported.layer_memory or base.layer_memory,
        overlap_slowdown=imported.overlap_slowdown or base.overlap_slowdown,
        overlaps=imported.overlaps or base.overlaps,
        launch=imported.launch or base.launch,
        trace=imported.trace or base.trace,
        provenance=Provenance(
            birth="measured",
            source=f"{base.provenance.source}; {imported.provenance.source}",
            date=base.provenance.date,
        ),
    )


def _machine(base: Machine, other: Machine, where: str) -> Machine:
    """The machine of both. Raises InputError when they are different ones."""
    if base.kind != other.kind or (
        base.accelerator and other.accelerator and base.accelerator != other.accelerator
    ):
        raise InputError(
            f"--into {where}: was taken on {base.accelerator or base.processor}, the import is of "
            f"{other.accelerator or 'GPUs'}; keep a profile per machine"
        )
    return base.replace(
        accelerator=base.accelerator or other.accelerator,
        accelerators=base.accelerators or other.accelerators,
        accelerator_memory_bytes=base.accelerator_memory_bytes or other.accelerator_memory_bytes,
    )
