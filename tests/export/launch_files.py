"""The plans whose launch files are kept in tests/export/golden (`make goldens`, review)."""

from pathlib import Path

from planner.export.targets import TARGETS, export
from planner.spec.layout import Layout, even_counts, make_stages
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import cpu_cluster, gpu_cluster, llama_like, plain_runtime

GOLDEN = Path(__file__).parent / "golden"


def plan_of(layout: Layout, gpus: bool) -> Plan:
    model = llama_like()
    dtype = "bf16" if gpus else "fp32"
    return Plan(
        model=model,
        cluster=gpu_cluster(2) if gpus else cpu_cluster(4),
        workload=Workload(seq_len=32, global_batch=16, dtype=dtype),
        runtime=plain_runtime(),
        layout=layout,
        stages=make_stages(layout, even_counts(model.layers, layout.pp)),
    )


PLANS = {
    "nodes": plan_of(Layout(dp=4, tp=2, pp=2, zero=1), gpus=True),
    "cores": plan_of(Layout(dp=2, zero=1), gpus=False),
}


def texts() -> dict[str, str]:
    """Every launch file but the plans themselves, by the name of its golden."""
    return {
        f"{name}.{file}": text
        for name, plan in PLANS.items()
        for target in TARGETS
        for file, text in export(plan, target).items()
        if file != "plan.json"
    }


def rewrite() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, text in texts().items():
        (GOLDEN / name).write_text(text)
