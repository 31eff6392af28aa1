"""A training goes on exactly under any plan, and nothing that breaks loses a whole checkpoint."""

import resource
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from executor.training import checkpoints, record, state
from executor.training.checkpoints import FOLDER, LATEST
from executor.training.options import TrainOptions
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from planner.spec.trained import Trained
from tests.executor.plans import make_plan
from tests.executor.pool import Pool
from tests.executor.training.sessions import MODELS, options, train, trained

STEPS, HALF = 6, 3
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("gpt2", {"dp": 2, "micro_batch": 12}, {"tp": 2, "micro_batch": 12}),
    ("gpt2", {"pp": 4, "micro_batch": 4}, {"dp": 2, "zero": 3, "micro_batch": 12}),
    ("llama", {"dp": 4, "zero": 2, "shard": 2, "tp": 2, "micro_batch": 3}, {"micro_batch": 24}),
    (
        "mixtral",
        {"dp": 4, "ep": 2, "etp": 2, "zero": 1, "micro_batch": 3},
        {"tp": 2, "micro_batch": 24},
    ),
    (
        "llama",
        {"tp": 4, "micro_batch": 12},
        {"pp": 2, "vpp": 2, "schedule": "zbv", "dp": 2, "zero": 1, "micro_batch": 3},
    ),
]


def stretch(folder: Path, **changes: Any) -> TrainOptions:
    """Options of a training that writes a checkpoint in the middle and one at its end."""
    return options(folder, **({"steps": STEPS, "checkpoint_every": HALF} | changes))


def interrupted(folder: Path) -> None:
    """Make a finished training look as if it had ended in its second half."""
    shutil.rmtree(folder / FOLDER / f"step-{STEPS:08d}")


@pytest.mark.parametrize(("name", "before", "after"), CHANGES)
def test_a_training_goes_on_exactly_under_another_plan(
    pool: Pool, tmp_path: Path, name: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    alone = trained(pool, name, options(tmp_path / "alone", steps=STEPS), micro_batch=24)
    folder = tmp_path / "training"
    trained(pool, name, stretch(folder), **before)
    interrupted(folder)
    found = trained(pool, name, stretch(folder, resume=True), **after)
    assert found.first_step == HALF
    assert found.loss == pytest.approx(alone.loss, rel=1e-11)
    assert found.value == pytest.approx(alone.value, rel=1e-10)


def test_sixteen_bit_weights_go_on_from_their_masters(pool: Pool, tmp_path: Path) -> None:
    layout: dict[str, Any] = {"dtype": "bf16", "dp": 2, "zero": 1, "micro_batch": 12}
    whole = trained(pool, "gpt2", stretch(tmp_path), **layout)
    interrupted(tmp_path)
    again = trained(pool, "gpt2", stretch(tmp_path, resume=True), **layout)
    assert again.loss == whole.loss
    assert again.value == whole.value


@pytest.fixture(scope="module")
def finished(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A training with checkpoints before steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("finished")
    chosen = stretch(folder, checkpoint_every=2, keep=3)
    return folder, trained(pool, "gpt2", chosen, micro_batch=24)


@pytest.fixture
def folder(finished: tuple[Path, Trained], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy", symlinks=True))


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def resumed(pool: Pool, folder: Path, plan: Plan, **changes: Any) -> Any:
    return pool.run(train, plan, stretch(folder, resume=True, **changes))[0]


def test_the_newest_are_kept_and_named(finished: tuple[Path, Trained], pool: Pool) -> None:
    folder, _ = finished
    assert steps_in(folder) == [LATEST, "step-00000002", "step-00000004", "step-00000006"]
    assert (folder / FOLDER / LATEST).resolve().name == "step-00000006"


def test_old_checkpoints_make_room(pool: Pool, folder: Path) -> None:
    shutil.rmtree(folder / FOLDER / "step-00000006")
    plan = make_plan(MODELS["gpt2"], micro_batch=24)
    assert isinstance(resumed(pool, folder, plan, checkpoint_every=1, keep=2), Trained)
    assert steps_in(folder) == [LATEST, "step-00000005", "step-00000006"]


@pytest.mark.parametrize("victim", ["__0_0.distcp", ".metadata", "checkpoint.json"])
def test_a_truncated_checkpoint_is_passed_over(
    pool: Pool, folder: Path, finished: tuple[Path, Trained], victim: str
) -> None:
    for name in ("step-00000006", "step-00000004"):
        path = folder / FOLDER / name / victim
        path.write_bytes(path.read_bytes()[:-100])
    notes: list[str] = []
    assert [path.name for path in checkpoints.whole(folder / FOLDER, notes)] == ["step-00000002"]
    assert all(victim in note and "is damaged" in note for note in notes)
    assert len(notes) == 2
    found = resumed(pool, folder, make_plan(MODELS["gpt2"], dp=2, micro_batch=12))
    assert found.first_step == 2
    assert found.loss == pytest.approx(finished[1].loss, rel=1e-11)


def test_spoiled_bytes_are_passed_over(pool: Pool, folder: Path) -> None:
    path = folder / FOLDER / "step-00000006" / "__0_0.distcp"
    path.write_bytes(bytes(path.stat().st_size))
    found = resumed(pool, folder, make_plan(MODELS["gpt2"], tp=2, micro_batch=12))
    assert found.first_step == 4


def test_no_whole_checkpoint_is_an_error_on_every_rank(pool: Pool, folder: Path) -> None:
    for path in (folder / FOLDER).glob("step-*/checkpoint.json"):
        path.unlink()
    plan = make_plan(MODELS["gpt2"], dp=2, micro_batch=12)
    answers = pool.run(train, plan, stretch(folder, resume=True))[:2]
    assert all("holds no whole checkpoint; start anew" in answer for answer in answers)


def test_a_folder_without_checkpoints_begins(pool: Pool, tmp_path: Path) -> None:
    plan = make_plan(MODELS["gpt2"], micro_batch=24)
    found = pool.run(train, plan, options(tmp_path, steps=1, resume=True))[0]
    assert (found.first_step, len(found.loss)) == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"was made with seed=0, here it is 1.*Give the same --seed"),
        ({"global_batch": 48}, r"global_batch=24, here it is 48"),
        ({"hidden": 64}, r"model\.hidden=32, the plan has 64"),
    ],
)
def test_another_training_is_refused(
    pool: Pool, folder: Path, change: dict[str, int], message: str
) -> None:
    plan = make_plan(MODELS["gpt2"], micro_batch=24)
    if "hidden" in change:
        plan = plan.replace(model=plan.model.replace(**change))
    elif "global_batch" in change:
        plan = plan.replace(workload=plan.workload.replace(**change))
    seed = change.get("seed", 0)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(resumed(pool, folder, plan, seed=seed))
    assert len(steps_in(folder)) == 4


def test_a_training_with_more_steps_is_refused(tmp_path: Path) -> None:
    plan = make_plan(MODELS["gpt2"], micro_batch=24)
    made = record.describe(plan, options(tmp_path), "data", 3, {})
    with pytest.raises(InputError, match="has 3 steps, and --steps 2 asks for fewer"):
        record.check(made, plan, options(tmp_path, steps=2), tmp_path)


def fill_the_disk(rank: int, plan: Plan, chosen: TrainOptions) -> Trained | str | None:
    """Rank 1 cannot write more than 10 kB into a file of a checkpoint."""
    save = state.save

    def save_little(*arguments: Any) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            save(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with mock.patch.object(state, "save", save_little):
        return train(rank, plan, chosen)


def test_a_full_disk_keeps_the_last_checkpoint(pool: Pool, folder: Path) -> None:
    shutil.rmtree(folder / FOLDER / "step-00000006")
    plan = make_plan(MODELS["gpt2"], dp=2, zero=1, micro_batch=12)
    chosen = stretch(folder, resume=True, checkpoint_every=1)
    answers = pool.run(fill_the_disk, plan, chosen)[:2]
    for answer in answers:
        assert "the checkpoint before step 5 cannot be written: rank 1: " in answer
        assert "the last whole one is" in answer
        assert "step-00000004. Make room there, then go on with --resume" in answer
    assert steps_in(folder) == [LATEST, "step-00000002", "step-00000004"]
    assert resumed(pool, folder, plan).first_step == 4


def test_a_loss_that_is_no_number_names_its_step(pool: Pool, tmp_path: Path) -> None:
    plan = make_plan(MODELS["gpt2"], dp=2, dtype="fp32", micro_batch=12)
    wild = stretch(tmp_path, checkpoint_every=1, learning_rate=1e38, warmup=4, clip_norm=None)
    answers = pool.run(train, plan, wild)[:2]
    for answer in answers:
        assert answer.startswith("step 1: the loss is nan")
        assert "the training stopped there" in answer
    assert steps_in(tmp_path) == [LATEST, "step-00000001"]
