"""Drawn plans of every schedule: uneven stages, layers that recompute differently, all traits."""

import itertools
from random import Random

from planner.cost.blocks import Blocks
from planner.cost.candidates import Candidates
from planner.schedule.orders import ONE_CHUNK, V_SHAPED, problem
from planner.spec.layout import LayerChoice, Layout, Stage
from planner.spec.model import ModelSpec
from planner.spec.plan import Plan
from planner.spec.runtime import RECOMPUTES, SCHEDULES
from planner.spec.workload import Workload
from tests.cost.drawn import wide, with_experts
from tests.examples import cpu_cluster, gpu_cluster, plain_runtime

BATCH = 16


def drawn_plan(random: Random, **traits: object) -> Plan:
    """A plan of a model of 8 layers on 32 devices. traits: of the runtime, instead of drawn ones;
    schedule, cpu: of the plan."""
    schedule = str(traits.pop("schedule", random.choice(SCHEDULES)))
    shared = bool(traits.pop("cpu", False))
    pp, dp = random.choice([1, 2, 4]), random.choice([1, 2, 4])
    vpp = 1 if schedule in ONE_CHUNK else 2 if schedule in V_SHAPED else random.choice([2, 3])
    while problem(schedule, pp, vpp, BATCH // dp):
        pp, dp = max(pp // 2, 1), max(dp // 2, 1)
    layout = Layout(
        dp=dp,
        tp=1 if shared else random.choice([1, 2]),
        pp=pp,
        vpp=vpp,
        zero=random.choice([0, 1] if shared else [0, 1, 2, 3]),
        schedule=schedule,
    )
    drawn = {
        "overlaps_dp": random.random() < 0.5,
        "overlaps_p2p": random.random() < 0.5,
        "overlap_slowdown": random.choice([0.0, 0.2, 1.0]),
        "prefetches_parameters": random.random() < 0.5,
        "microbatch_seconds": random.choice([0.0, 1e-4]),
        "step_seconds": random.choice([0.0, 1e-3]),
    }
    model = wide() if random.random() < 0.7 else with_experts(wide())
    return Plan(
        model=model,
        cluster=cpu_cluster(32, cores=32) if shared else gpu_cluster(nodes=4),
        workload=Workload(seq_len=64, global_batch=BATCH, dtype="fp32" if shared else "bf16"),
        runtime=plain_runtime(schedules=SCHEDULES, **(drawn | traits)),
        layout=layout,
        stages=_stages(random, layout, model),
    )


def _stages(random: Random, layout: Layout, model: ModelSpec) -> tuple[Stage, ...]:
    """Stages cut anywhere, every layer with a recompute mode of its own."""
    cuts = sorted(random.randint(0, model.layers) for _ in range(layout.pp * layout.vpp - 1))
    bounds = [0, *cuts, model.layers]
    choices = [
        LayerChoice(recompute=random.choice(RECOMPUTES), zero=layout.zero)
        for _ in range(model.layers)
    ]
    return tuple(
        Stage(first_layer=a, layers=tuple(choices[a:b]), dp=layout.dp, tp=layout.tp)
        for a, b in itertools.pairwise(bounds)
    )


def question(plan: Plan) -> tuple[Blocks, Candidates]:
    """What estimates and replays take."""
    asked = plan.layout, plan.stages, plan.workload.global_batch, plan.model
    return Blocks.of_plan(plan), Candidates.of_plan(*asked)
