"""The runtime of a measured run: the catalog's entry of that name, or the nearest one.

Nobody's row is dropped for its software: a name that the catalog lacks is read by what it holds,
the first entry of its line that the catalog has and that divides over the axes which the row
divides over stands in, and that is noted (FSDP in a plain loop knows no tensor or pipeline ranks,
torchtitan does).
"""

import functools
import re
from collections.abc import Collection

from planner.spec import catalog
from planner.spec.runs.run import Run
from planner.spec.runtime import Runtime

NEAREST = (
    (r"nanotron|picotron", ("nanotron", "megatron-core")),
    (r"megatron.*deepspeed|deepspeed.*megatron|neox", ("megatron-deepspeed", "megatron-core")),
    (r"automodel", ("torchtitan", "fsdp", "megatron-core")),
    (r"nemo|megatron[-_ ]?bridge|hai-?llm", ("nemo", "megatron-core")),
    (r"megatron.*2021|sc21", ("megatron-lm-2021", "megatron-core")),
    (r"megatron.*2022|sc22", ("megatron-lm-2022", "megatron-core")),
    (r"megatron|mcore|pai|mindspeed|sagemaker", ("megatron-core",)),
    (r"composer|mosaic|foundry", ("composer-fsdp", "fsdp", "megatron-core")),
    (r"torch-?titan|titan|torchtune", ("torchtitan", "fsdp", "megatron-core")),
    (r"deepspeed|zero", ("deepspeed", "fsdp", "megatron-core")),
    (
        r"fsdp|hsdp|fully[-_ ]?shard|accelerate|lightning|lit-?gpt|\bfms\b|olmo|metaseq|fairscale"
        r"|modalities|xtuner|bmtrain",
        ("fsdp", "torchtitan", "megatron-core"),
    ),
    (
        r"\bddp\b|transformers|hugging|\bhf\b|\btrl\b|axolotl|factory|optimum|pytorch|unsloth"
        r"|nanogpt|llm\.c",
        ("fsdp", "torchtitan", "megatron-core"),
    ),
    (
        r"maxtext|jax|xla|alpa|pax|pathways|levanter|axlearn|t5x|flax|easylm",
        ("fsdp",),
    ),
)
DEFAULT = "megatron-core"

MEGATRON_UNTIL = {2021: "megatron-lm-2021", 2023: "megatron-lm-2022"}
"""Last year of Megatron as an entry describes it, for rows that tell their year: gradients are
reduced beside the backward since the end of 2023 (--overlap-grad-reduce)."""

PUBLISHED_LATER = 2024
OF_ITS_TIME = r"[av]100|a800"
"""A paper's software is older than the paper: MegaScale's baseline, of 2024 on A100, is Megatron-LM
of 2023-01-11 (commit 285068c8). Where the year is that or unknown, these devices had the older."""


def runtime_of(
    run: Run, chosen: str | None = None, divided: Collection[str] = ()
) -> tuple[Runtime, tuple[str, ...]]:
    """The runtime of a row, or the chosen one; what was assumed. divided: the axes of more than
    one rank. Raises InputError if the chosen one does not exist."""
    if chosen is not None:
        return _entry(chosen), ()
    name = (run.runtime or "").strip().lower()
    if name in catalog.list_runtimes():
        return _entry(name), ()
    if not name:
        stand_in = nearest("fsdp" if run.fsdp else DEFAULT, divided)
        return _entry(stand_in), (f"runtime unknown, {stand_in} assumed",)
    stand_in = _of_year(name, run) or nearest(name, divided)
    return _entry(stand_in), (f"runtime {run.runtime!r} is not in the catalog, as {stand_in}",)


def _of_year(name: str, run: Run) -> str | None:
    """The entry for Megatron-LM (and NeMo Megatron) as it was in an early year."""
    if "megatron" not in name or "deepspeed" in name or re.search("core|bridge|primus", name):
        return None
    year = run.year
    old = re.search(OF_ITS_TIME, (run.gpu or "").lower()) is not None and "nemo" not in name
    if old and year in (None, PUBLISHED_LATER):
        year = PUBLISHED_LATER - 1
    known = catalog.list_runtimes()
    found = (e for last, e in MEGATRON_UNTIL.items() if year and year <= last and e in known)
    return next(found, None)


def nearest(name: str, divided: Collection[str] = ()) -> str:
    """The catalog's entry that stands in for a name, of a run that divides over these axes."""
    known = catalog.list_runtimes()
    for pattern, entries in NEAREST:
        if re.search(pattern, name.lower()):
            found = [entry for entry in entries if entry in known]
            able = (entry for entry in found if set(divided) <= set(_entry(entry).axes))
            return next(able, found[0] if found else DEFAULT)
    return DEFAULT


@functools.cache
def _entry(name: str) -> Runtime:
    return catalog.find_runtime(name)
