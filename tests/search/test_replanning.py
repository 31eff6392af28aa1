import pytest

from planner.search import planning
from planner.search.ranking import NoPlanError
from planner.search.replanning import replan
from planner.spec.plan import Plan
from planner.spec.workload import Workload
from tests.examples import blocks, cpu_cluster, gpu_cluster, llama_like


@pytest.fixture(scope="module")
def plan() -> Plan:
    asked = blocks(llama_like(), gpu_cluster(2, 4), Workload(seq_len=32, global_batch=16))
    return planning.choose(asked, top_k=1)[1][0]


def test_a_lost_device_of_a_node_leaves_whole_nodes(plan: Plan) -> None:
    again = replan(plan, 7)
    assert (again.layout.devices, again.cluster.devices) == (4, 4)
    assert (again.model, again.workload) == (plan.model, plan.workload)
    assert again.runtime == plan.runtime


def test_devices_that_do_not_divide_the_batch_stay_idle() -> None:
    small = Workload(seq_len=32, global_batch=2, dtype="fp32")
    one_layer = llama_like(layers=1)
    plan = planning.choose(blocks(one_layer, cpu_cluster(4), small), top_k=1)[1][0]
    assert replan(plan, 3).layout.devices < 3


def test_no_plan_names_every_number_that_was_tried(plan: Plan) -> None:
    starved = plan.cluster.accelerator.replace(memory_bytes=1.0)
    with pytest.raises(NoPlanError, match=r"(?s)2 devices or fewer.*2 devices: .*1 devices: "):
        replan(plan.replace(cluster=plan.cluster.replace(accelerator=starved)), 2)
