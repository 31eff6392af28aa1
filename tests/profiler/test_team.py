"""Teams of workers: tasks, errors, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from profiler import collectives, composition, launch, operators, overlaps, slowdown
from profiler.collectives import CollectiveRequest
from profiler.kinds import OperatorRequest
from profiler.layers import Reference
from profiler.team import RunError, Team
from tests.examples import gpt2_like, llama_like

TINY = OperatorRequest("linear", {"m": 8, "k": 8, "n": 8, "bias": 1}, "fp32")
NORM = OperatorRequest("gradient_norm", {"parameters": 64}, "fp32")


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(4) as made:
        yield made


def reference(**changes: object) -> Reference:
    values = {"model": gpt2_like(), "seq_len": 8, "micro_batch": 2, "dtype": "fp32"}
    return Reference.model_validate(values | changes)


def test_operators_are_timed_in_all_processes(team: Team) -> None:
    samples = operators.measure_batch([TINY, NORM], team, busy=2, seconds=0.01)
    assert [(s.kind, s.phase) for s in samples] == [
        ("linear", "forward"),
        ("linear", "backward"),
        ("gradient_norm", "forward"),
    ]
    assert all(sample.dims == TINY.dims for sample in samples[:2])
    # three rounds at least, in each of two processes
    assert all(0 < sample.seconds < 1 and sample.repeats >= 6 for sample in samples)


def test_batches_keep_order_dtype_and_size() -> None:
    other = OperatorRequest("gradient_norm", {"parameters": 64}, "fp64")
    big = OperatorRequest("gradient_norm", {"parameters": 100 << 20}, "fp32")
    asked = [TINY, NORM, other, big, big, NORM]
    found = operators.batches(asked)
    assert [request for batch in found for request in batch] == asked
    assert found[0] == [TINY, NORM]
    assert found[1] == [other]
    assert all(len(batch) <= operators.BATCH for batch in operators.batches([TINY] * 50))


@pytest.mark.parametrize("model", [gpt2_like(), llama_like()], ids=["gpt2", "llama"])
def test_composition_of_whole_layers(team: Team, model: object) -> None:
    factors, samples = composition.measure_composition(
        reference(model=model), team, 1, enough=lambda: True
    )
    assert set(factors) == {"forward", "backward"}
    assert all(0.2 < factor < 5 for factor in factors.values())
    keys = {sample.key[:3] for sample in samples}
    assert keys == {request.key for request in reference(model=model).operators()}


def test_compose_divides_by_every_operator_of_the_layer() -> None:
    asked = reference()
    samples = {
        (*request.key, phase): _sample(request, phase)
        for request in asked.operators()
        for phase in operators.PHASES
    }
    layer = {"forward": 24.0, "backward": 36.0}
    count = len(asked.operators())
    assert count == 12
    factors = composition.compose(asked, layer, samples)  # type: ignore[arg-type]
    assert factors == {"forward": 24 / count, "backward": 36 / (2 * count)}


def _sample(request: OperatorRequest, phase: str) -> operators.OperatorSample:
    return operators.OperatorSample.model_validate(
        {
            "kind": request.kind,
            "dims": request.dims,
            "dtype": "fp32",
            "phase": phase,
            "seconds": 1.0 if phase == "forward" else 2.0,
            "spread": 0.0,
            "repeats": 1,
        }
    )


def test_slowdown_starts_at_one_and_never_falls(team: Team) -> None:
    pairs = slowdown.measure_slowdown(reference(), team, (2, 4), cores=2, seconds=0.05)
    assert pairs[0] == (1, 1.0)
    assert [count for count, _ in pairs] == [1, 2, 4]
    factors = [factor for _, factor in pairs]
    assert factors == sorted(factors)


def test_slowdown_is_made_monotone() -> None:
    assert slowdown.monotone({1: 1.0, 2: 0.9, 4: 2.0, 8: 1.5}) == (
        (1, 1.0),
        (2, 1.0),
        (4, 2.0),
        (8, 2.0),
    )


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 64])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_slowdown_covers_the_cores_and_the_ranks(cores: int, ranks: int) -> None:
    counts = slowdown.busy_counts(cores, ranks)
    assert counts[0] == 1
    assert list(counts) == sorted(set(counts))
    assert min(cores, 8) in counts
    assert max(ranks, min(2 * cores, 8)) <= counts[-1] <= 8


@pytest.mark.parametrize("op", collectives.OPS)
def test_every_collective_of_two_ranks(team: Team, op: str) -> None:
    request = CollectiveRequest(op, 2, 1, 1000)  # type: ignore[arg-type]
    sample = collectives.measure_collective(request, team, seconds=0.01)
    assert (sample.op, sample.ranks, sample.groups, sample.message_bytes) == (op, 2, 1, 1000)
    assert sample.repeats >= collectives.LEAST_REPEATS
    assert 0 < sample.seconds < 1


def test_two_groups_at_once_and_a_group_of_four(team: Team) -> None:
    for ranks, groups in ((2, 2), (4, 1)):
        request = CollectiveRequest("all_reduce", ranks, groups, 4096)
        assert collectives.measure_collective(request, team, seconds=0.01).groups == groups


def test_groups_interleave_and_results_overwrite_inputs(team: Team) -> None:
    apart = CollectiveRequest("all_gather", 2, 2, 4096, stride=2)
    assert apart.members == [(0, 2), (1, 3)]
    sample = collectives.measure_collective(apart, team, seconds=0.01)
    assert (sample.groups, sample.stride, sample.in_place, sample.nodes) == (2, 2, False, 1)
    for op in collectives.EITHER_WAY:
        inside = CollectiveRequest(op, 2, 1, 4096, inside=True)  # type: ignore[arg-type]
        assert collectives.measure_collective(inside, team, seconds=0.01).in_place


@pytest.mark.parametrize("op", ["all_reduce", "send_recv"])
def test_one_group_leaves_the_ranks_between_idle(team: Team, op: str) -> None:
    """As links of a network are measured: at agreed moments, receivers first."""
    alone = CollectiveRequest(op, 2, 1, 4096, stride=2)  # type: ignore[arg-type]
    assert (alone.members, alone.team) == ([(0, 2)], 3)
    sample = collectives.measure_collective(alone, team, seconds=0.01, lead_seconds=2e-3)
    assert (sample.groups, sample.stride) == (1, 2)
    assert 0 < sample.seconds < 1


def test_a_burst_is_timed_by_the_device(team: Team) -> None:
    """The path of GPUs, with the clock of a CPU."""
    request = CollectiveRequest("all_reduce", 2, 1, 4096)
    sample = collectives.measure_collective(request, team, seconds=0.01, burst=3)
    assert 0 < sample.seconds < 1


@pytest.mark.parametrize("op", overlaps.OPS)
def test_a_collective_runs_beside_computing(
    team: Team, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlaps, "WIDTH", {"cpu": 32})
    request = CollectiveRequest(op, 2, 2, 4096)  # type: ignore[arg-type]
    sample = overlaps.measure_overlap(request, team, "fp32", seconds=0.01)
    assert sample.key == overlaps.key(request, "cpu", "fp32")
    assert 0 <= sample.slowdown <= 1
    assert sample.repeats >= 4 * 5
    assert sample.compute_seconds > 0 < sample.collective_beside_seconds


def test_the_factor_of_overlap_is_that_of_the_largest_messages() -> None:
    def sample(size: int, beside: float) -> overlaps.OverlapSample:
        seconds = {"compute_seconds": 2.0, "collective_seconds": 1.0}
        seconds |= {"compute_beside_seconds": beside, "collective_beside_seconds": 1.5}
        case = {"op": "all_reduce", "backend": "gloo", "ranks": 2, "message_bytes": size}
        return overlaps.OverlapSample.model_validate(
            {**case, **seconds, "compute": "x", "dtype": "fp32"}
        )

    many = [sample(4, 2.9), sample(8, 2.2), sample(8, 2.2), sample(8, 9.0)]
    assert overlaps.overlap_factor(many) == pytest.approx(1 / 0.8)
    assert overlaps.overlap_factor([]) is None
    assert many[1].slowdown == pytest.approx(0.2)
    assert many[3].slowdown == 1.0


def test_launching_costs_something(team: Team) -> None:
    cost = launch.measure_launch(team, "fp32", seconds=0.01)
    assert 0 < cost.kernel_seconds < cost.layer_host_seconds < 1
    assert cost.repeats >= launch.LEAST_ROUNDS


@pytest.mark.gpu
def test_a_gpu_times_launch_and_products() -> None:
    with Team(1, "cuda") as alone:
        assert launch.measure_launch(alone, "bf16", seconds=0.05).kernel_seconds < 1e-3
        wanted = OperatorRequest("matmul_nt", {"m": 512, "n": 512, "k": 512}, "bf16")
        assert operators.measure_batch([wanted], alone, busy=1, seconds=0.05)


@pytest.mark.gpu
def test_two_gpus_overlap() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices; this machine has one")
    with Team(2, "cuda") as two:
        request = CollectiveRequest("all_reduce", 2, 1, 4 << 20)
        assert collectives.measure_collective(request, two, seconds=0.05).seconds < 1
        assert overlaps.measure_overlap(request, two, "bf16", seconds=0.05).slowdown <= 1


def test_durations_run_from_the_mean_entry_to_the_last_exit() -> None:
    first = [(0.0, 5.0), (10.0, 11.0)]
    second = [(2.0, 4.0), (10.5, 12.5)]
    quick = [(0.0, 1.0), (10.0, 10.1)]
    assert collectives.durations([first, second], 2) == [4.0, 2.25]
    assert collectives.durations([first, second, quick, quick], 2) == [4.0, 2.25]
    assert collectives.durations([quick, quick, first, second], 2) == [4.0, 2.25]


def test_typical_is_the_mean_without_the_extremes() -> None:
    assert collectives.typical([1.0, 3.0]) == 2.0
    assert collectives.typical([*[1.0] * 5, *[2.0] * 4, 90.0]) == 1.5


def test_a_failing_task_names_the_reason_and_the_team_goes_on(team: Team) -> None:
    broken = OperatorRequest("linear", {"m": 8}, "fp32")
    with pytest.raises(RunError, match="rank 0"):
        operators.measure_batch([broken], team, busy=2, seconds=0.01)
    assert operators.measure_batch([NORM], team, busy=2, seconds=0.01)


def test_a_dead_worker_is_reported_at_once() -> None:
    team = Team(2)
    try:
        operators.measure_batch([NORM], team, busy=2, seconds=0.01)
        os.killpg(team._process.pid, signal.SIGKILL)
        with pytest.raises(RunError, match="ended"):
            operators.measure_batch([NORM], team, busy=2, seconds=0.01)
    finally:
        team.close()


def test_silence_ends_after_the_time_out() -> None:
    with Team(1) as team, pytest.raises(RunError, match="in time"):
        team.run("copy", 1, timeout_seconds=0.2, size_bytes=1 << 16, seconds=60.0)


def test_closing_ends_every_process() -> None:
    with Team(2) as team:
        team.run("copy", 2, size_bytes=1 << 10, seconds=0.0)
        group = team._process.pid
        assert _alive(group)
    assert not _alive(group)


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom profiler.team import Team\nteam = Team(2)\n"
        "team.run('copy', 2, size_bytes=1024, seconds=0.0)\n"
        "print(team._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parent.parent.parent
    # a killed parent cannot remove its temporary folder
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment
    )
    group = int(done.stdout)
    for _ in range(100):
        if not _alive(group):
            return
        time.sleep(0.05)
    pytest.fail("workers outlived their parent")


def _alive(group: int) -> bool:
    """Whether a process group has a process that is not a zombie."""
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(fields[2]) == group and fields[0] not in ("Z", "X"):
            return True
    return False
