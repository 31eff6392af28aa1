"""Teams of workers: tasks, errors, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler import collectives, composition, operators, slowdown
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
