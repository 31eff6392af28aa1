"""Plans drawn from all that native offers and the executor does not refuse train the same model.

    make test-parity                     hundreds of plans
    PARITY_DRAWS=1000 make test-parity   as many as you like

The default suite draws a few. Models are of every kind, GPT-2 and Llama as often as all others
together. What is drawn is legal for the planner's native runtime; the same fp64 comparison as in
test_equality.
"""

import os
from typing import Any

from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from executor import refusals
from planner.schedule import orders
from planner.schedule.orders import SPLIT, V_SHAPED
from planner.search.legality import mesh_problems, runtime_problems
from planner.spec import catalog
from planner.spec.layout import Layout, make_stages
from planner.spec.plan import Plan
from tests.executor.kinds import MIXTURES
from tests.executor.plans import ALL, GLOBAL_BATCH, SPECS, make_plan, reference
from tests.executor.pool import RANKS, Pool
from tests.executor.test_equality import check

NATIVE = catalog.find_runtime("native")
DRAWS = int(os.environ.get("PARITY_DRAWS", "6"))


@st.composite
def layouts(draw: Any) -> dict[str, Any]:
    """A layout on at most 8 ranks, without its microbatch."""
    degrees: dict[str, int] = {}
    left = RANKS
    for axis in draw(st.permutations(["dp", "tp", "pp", "cp"])):
        most = {"dp": 8, "tp": 4, "pp": 4, "cp": 2}[axis]
        sizes = [n for n in (1, 2, 3, 4, 6, 8) if n <= min(left, most)]
        degrees[axis] = draw(st.sampled_from([n for n in sizes if axis in ("dp", "pp") or n != 3]))
        left //= degrees[axis]
    found: dict[str, Any] = {**degrees, "recompute": draw(st.sampled_from(NATIVE.recompute))}
    if degrees["pp"] > 1:
        found["schedule"] = draw(st.sampled_from(NATIVE.schedules))
        chunked = found["schedule"] not in ("gpipe", "1f1b", "zb-h1")
        shape = 2 if found["schedule"] in V_SHAPED else draw(st.sampled_from([2, 3]))
        found["vpp"] = shape if chunked else 1
    return found | draw(states(degrees["dp"] * degrees["cp"], found.get("schedule") in SPLIT))


@st.composite
def states(draw: Any, replicas: int, split: bool) -> dict[str, Any]:
    """How replicas keep their states and agree."""
    if replicas == 1:
        return {}
    zero = draw(st.sampled_from(NATIVE.split_zero_stages if split else NATIVE.zero_stages))
    if not zero:
        return {"sync": draw(st.sampled_from(NATIVE.synchronisations))}
    divisors = [n for n in range(1, replicas + 1) if replicas % n == 0]
    return {"zero": zero, "shard": draw(st.sampled_from([None, *divisors]))}


@st.composite
def experts(draw: Any, ranks: int) -> dict[str, int]:
    """Over how many ranks experts are divided, and each of them."""
    ways = [(ep, etp) for ep in (1, 2, 4) for etp in (1, 2) if ranks % (ep * etp) == 0]
    ep, etp = draw(st.sampled_from(ways))
    return {"ep": ep, "etp": etp}


@st.composite
def plans(draw: Any) -> tuple[str, Plan]:
    names = draw(st.sampled_from([sorted(SPECS), sorted(ALL.keys() - SPECS.keys())]))
    name, given = draw(st.sampled_from(names)), draw(layouts())
    if name in MIXTURES:
        given |= draw(experts(given["dp"] * given["tp"] * given["cp"]))
    layers, stages = ALL[name].layers, given["pp"] * given.get("vpp", 1)
    cuts = sorted(draw(st.integers(0, layers)) for _ in range(stages - 1))
    counts = tuple(b - a for a, b in zip([0, *cuts], [*cuts, layers], strict=True))
    each = GLOBAL_BATCH // given["dp"]
    sizes = [
        n
        for n in range(1, each + 1)
        if each % n == 0
        and not orders.problem(
            given.get("schedule", "1f1b"), given["pp"], given.get("vpp", 1), each // n
        )
    ]
    assume(sizes)
    # long pipelines of tiny microbatches are slow and show nothing more
    layout = Layout(**given, micro_batch=draw(st.sampled_from(sizes[-3:])))
    again = tuple(draw(st.integers(0, count)) for count in counts)
    plan = make_plan(name, counts, **layout.model_dump())
    return name, plan.replace(stages=make_stages(layout, counts, again), runtime=NATIVE)


def legal(plan: Plan) -> bool:
    mesh = mesh_problems(plan.model, plan.workload, NATIVE, plan.layout)
    return not any((*mesh, *runtime_problems(NATIVE, plan.layout)))


@settings(max_examples=DRAWS, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(drawn=plans(), clips=st.booleans())
def test_drawn_plan_equals_single_process(pool: Pool, drawn: tuple[str, Plan], clips: bool) -> None:
    name, plan = drawn
    assume(legal(plan))
    # what the planner may choose, the executor must not refuse
    refusals.check(plan)
    check(pool, name, plan, reference(name)[1][0] / 2 if clips else None)
