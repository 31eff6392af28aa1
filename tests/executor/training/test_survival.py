"""Ranks are killed, stopped and crashed while they train; nothing is lost but time."""

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import meshwright_train
from executor.processes.supervisor import RunError
from executor.training import history
from executor.training.checkpoints import FOLDER
from executor.training.launch import train_plan
from executor.training.options import TrainOptions
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from tests.examples import gpt2_like
from tests.executor.plans import make_plan
from tests.executor.processes.test_supervisor import alive
from tests.executor.started import started

MODEL = gpt2_like(vocab=256, layers=2)
STEPS = 30


def small_plan(**layout: Any) -> Plan:
    return make_plan(MODEL, dtype="fp32", **layout)


def options(folder: Path, **changes: Any) -> TrainOptions:
    values: dict[str, Any] = {"steps": STEPS, "held_out": 1, "output": folder}
    return TrainOptions(**(values | {"checkpoint_every": 3} | changes))


class Disturbance:
    """Acts once on a rank's process when the history has a given number of steps."""

    def __init__(self, folder: Path, act: Callable[[int], None], rank: int, after: int):
        self.pids: list[int] = []
        self._path, self._act, self._rank, self._after = folder / history.NAME, act, rank, after
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait)

    def __enter__(self) -> "Disturbance":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        assert self.pids, "the ranks ended before they could be disturbed"
        assert not any(map(alive, self.pids))
        assert not started("executor.training")

    def _wait(self) -> None:
        while not self._over.wait(0.005):
            if len(history.read(self._path)) >= self._after and (
                found := started("executor.training")
            ):
                self.pids = found
                self._act(found[self._rank])
                return


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def test_a_killed_rank_costs_a_device_and_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, folder = small_plan(dp=2, micro_batch=12), tmp_path / "disturbed"
    with Disturbance(folder, kill, rank=1, after=10):
        found = meshwright_train.survive(plan, options(folder, steps=120), elastic=True)
    said = capsys.readouterr().err
    assert "rank 1 was killed by signal 9" in said
    assert "planned anew for 1 devices: dp=1" in said
    assert "going on with step" in said
    assert found.layout.devices == 1
    assert found.first_step >= 9
    assert len(found.loss) == 120
    assert found.loss[-1] < found.loss[0] - 0.5


def test_survival_needs_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="need --checkpoint-every"):
        meshwright_train.survive(
            small_plan(), options(tmp_path, checkpoint_every=None), elastic=True
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("undisturbed")
    return train_plan(small_plan(micro_batch=24), options(folder))


LAYOUTS: list[dict[str, Any]] = [
    {"dp": 2, "zero": 1, "micro_batch": 12},
    {"pp": 2, "micro_batch": 8},
    {"tp": 2, "micro_batch": 12},
]


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(12))
def test_killed_and_stopped_at_random_it_ends_the_same(
    tmp_path: Path, undisturbed: Trained, attempt: int
) -> None:
    """Also with the newest checkpoint truncated between death and restart, every third time."""
    chance = random.Random(attempt)
    plan, folder = small_plan(**LAYOUTS[attempt % 3]), tmp_path / "training"
    act = kill if attempt % 2 else stop
    after, rank = chance.randrange(4, STEPS - 4), chance.randrange(2)
    named = rf"rank {rank} (was killed|stopped making progress)"
    with Disturbance(folder, act, rank, after), pytest.raises(RunError, match=named):
        train_plan(plan, options(folder, timeout_seconds=20.0))
    done = len(history.read(folder / history.NAME))
    if attempt % 3 == 0:
        newest = max((folder / FOLDER).glob("step-????????"))
        victim = chance.choice(sorted(newest.iterdir()))
        victim.write_bytes(victim.read_bytes()[: chance.randrange(victim.stat().st_size)])
    again = train_plan(plan, options(folder, resume=True))
    assert 0 <= again.first_step <= done
    assert again.loss == pytest.approx(undisturbed.loss, rel=1e-4)
    assert again.value == pytest.approx(undisturbed.value, rel=1e-4)


@pytest.mark.slow
def test_a_rank_that_is_lost_is_restarted_without_a_new_plan(tmp_path: Path) -> None:
    plan = small_plan(tp=2, micro_batch=12)
    with Disturbance(tmp_path, kill, rank=0, after=8):
        found = meshwright_train.survive(plan, options(tmp_path, steps=100), restarts=1)
    assert found.layout == plan.layout
    assert found.first_step >= 6
