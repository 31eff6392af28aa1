"""Told layout: what `--layout` says as a plan, or every reason why it cannot run."""

from collections.abc import Iterator

from planner.cost.blocks import Blocks
from planner.cost.stage_split import usual_counts
from planner.schedule import orders
from planner.search.legality import deepest, mesh_problems, runtime_problems
from planner.simulator.prediction import planned
from planner.spec.divisors import not_divided
from planner.spec.documents import InputError
from planner.spec.layout import Layout, even_counts, make_stages
from planner.spec.plan import Plan


def plan_of_layout(blocks: Blocks, text: str) -> Plan:
    """The plan that a `--layout` describes, predicted. Raises InputError when it is not legal."""
    text, recomputed = _take_recomputed(text)
    layout, counts = Layout.parse(text)
    if "axis_order" not in text:
        layout = layout.replace(axis_order=blocks.runtime.axis_order)
    counts = counts or _usual_counts(blocks, layout.pp * layout.vpp)
    check_layout(blocks, layout, counts)
    if recomputed is not None:
        _check_recomputed(layout, counts, recomputed)
    return planned(blocks, layout, make_stages(layout, counts, recomputed))


def _take_recomputed(text: str) -> tuple[str, tuple[int, ...] | None]:
    """A layout without its `recomputed=3,3,2,0`, and those numbers."""
    words = text.split()
    found = [word for word in words if word.startswith("recomputed=")]
    rest = " ".join(word for word in words if word not in found)
    if not found:
        return rest, None
    numbers = found[-1].partition("=")[2].split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--layout: {found[-1]!r}; write layers per stage: recomputed=3,3,2,0")
    return rest, tuple(int(number) for number in numbers)


def _check_recomputed(layout: Layout, counts: tuple[int, ...], again: tuple[int, ...]) -> None:
    if layout.recompute == "none":
        raise InputError("--layout: recomputed= needs recompute=full or recompute=selective")
    if len(again) != len(counts) or any(r > n for r, n in zip(again, counts, strict=False)):
        raise InputError(
            f"--layout: recomputed={','.join(map(str, again))} must be {len(counts)} numbers, each "
            f"at most the layers of its stage ({','.join(map(str, counts))})"
        )


def _usual_counts(blocks: Blocks, stages: int) -> tuple[int, ...]:
    """As the runtime splits, or evenly where that would leave a stage empty."""
    usual = usual_counts(blocks.model, blocks.runtime, stages)
    return usual if min(usual) else even_counts(blocks.model.layers, stages)


def check_layout(blocks: Blocks, layout: Layout, counts: tuple[int, ...]) -> None:
    """Raise InputError with every reason why a layout cannot run."""
    problems = list(_problems(blocks, layout, counts))
    if problems:
        raise InputError("\n".join(f"--layout: {problem}" for problem in problems))


def _problems(blocks: Blocks, layout: Layout, counts: tuple[int, ...]) -> Iterator[str]:
    model, workload = blocks.model, blocks.workload
    if layout.devices > blocks.cluster.devices:
        yield f"needs {layout.devices} devices, the cluster has {blocks.cluster.devices}"
    yield from mesh_problems(model, workload, blocks.runtime, layout)
    yield from runtime_problems(blocks.runtime, layout)
    if layout.pp > deepest(model) and model.encoder is not None:
        yield f"pp={layout.pp}: stages of an encoder and decoder are not costed yet; pp=1"
    stages = layout.pp * layout.vpp
    if len(counts) != stages or sum(counts) != model.layers:
        name = "pp" if layout.vpp == 1 else "pp*vpp"
        yield (
            f"stages={','.join(map(str, counts))} must be {stages} numbers ({name}) that sum to "
            f"the model's {model.layers} layers"
        )
    elif blocks.runtime.equal_stages and len(set(counts)) > 1:
        yield (
            f"stages={','.join(map(str, counts))}: the stages of runtime {blocks.runtime.name!r} "
            f"are equal; leave it out"
        )
    per_microbatch = layout.dp * layout.micro_batch
    if workload.global_batch % per_microbatch:
        said = f"dp*micro_batch={per_microbatch}"
        yield not_divided(said, per_microbatch, "global_batch", workload.global_batch)
        return
    microbatches = workload.global_batch // per_microbatch
    name = (
        orders.ONE_CHUNK.get(layout.schedule, layout.schedule)
        if layout.vpp > 1
        else layout.schedule
    )
    if layout.pp > 1 and (found := orders.problem(name, layout.pp, layout.vpp, microbatches)):
        yield found
