"""The runtime of a measured run: the catalog's entry of that name, or the nearest one.

Nobody's row is dropped for its software: a name that the catalog lacks is read by what it holds,
the first entry of its line that the catalog has stands in, and that is noted.
"""

import functools
import re

from planner.spec import catalog
from planner.spec.runs.run import Run
from planner.spec.runtime import Runtime

NEAREST = (
    (r"nanotron|picotron", ("nanotron", "megatron-core")),
    (r"megatron.*deepspeed|deepspeed.*megatron|neox", ("megatron-deepspeed", "megatron-core")),
    (r"automodel", ("torchtitan", "fsdp", "megatron-core")),
    (r"nemo|megatron[-_ ]?bridge", ("nemo", "megatron-core")),
    (r"megatron.*2021|sc21", ("megatron-lm-2021", "megatron-core")),
    (r"megatron.*2022|sc22", ("megatron-lm-2022", "megatron-core")),
    (r"megatron|mcore|pai|mindspeed|sagemaker", ("megatron-core",)),
    (r"composer|mosaic|foundry", ("composer-fsdp", "fsdp", "megatron-core")),
    (r"torch-?titan|titan|torchtune", ("torchtitan", "fsdp", "megatron-core")),
    (r"deepspeed|zero", ("deepspeed", "fsdp", "megatron-core")),
    (
        r"fsdp|hsdp|fully[-_ ]?shard|accelerate|lightning|lit-?gpt|\bfms\b|olmo|metaseq|fairscale"
        r"|modalities|xtuner|bmtrain",
        ("fsdp", "composer-fsdp", "megatron-core"),
    ),
    (
        r"\bddp\b|transformers|hugging|\bhf\b|\btrl\b|axolotl|factory|optimum|pytorch|unsloth"
        r"|nanogpt|llm\.c",
        ("fsdp", "megatron-core"),
    ),
    (
        r"maxtext|jax|xla|alpa|pax|levanter|axlearn|t5x|flax|easylm",
        ("fsdp", "torchtitan", "megatron-core"),
    ),
)
DEFAULT = "megatron-core"


def runtime_of(run: Run, chosen: str | None = None) -> tuple[Runtime, tuple[str, ...]]:
    """The runtime of a row, or the chosen one; what was assumed. Raises InputError if the chosen
    one does not exist."""
    if chosen is not None:
        return _entry(chosen), ()
    name = (run.runtime or "").strip().lower()
    if name in catalog.list_runtimes():
        return _entry(name), ()
    if not name:
        stand_in = nearest("fsdp" if run.fsdp else DEFAULT)
        return _entry(stand_in), (f"runtime unknown, {stand_in} assumed",)
    stand_in = nearest(name)
    return _entry(stand_in), (f"runtime {run.runtime!r} is not in the catalog, as {stand_in}",)


def nearest(name: str) -> str:
    """The catalog's entry that stands in for a name."""
    known = catalog.list_runtimes()
    for pattern, entries in NEAREST:
        if re.search(pattern, name.lower()):
            return next((entry for entry in entries if entry in known), DEFAULT)
    return DEFAULT


@functools.cache
def _entry(name: str) -> Runtime:
    return catalog.find_runtime(name)
