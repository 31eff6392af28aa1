import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.training import tasks
from executor.training.translation import SHORTEST, Translation, is_held_out
from planner.spec.documents import InputError
from planner.spec.plan import Plan
from tests.examples import gpt2_like
from tests.executor.plans import make_plan
from tests.executor.training.sessions import MODELS


def plan_of(seq_len: int) -> Plan:
    plan = make_plan(gpt2_like(vocab=256, max_positions=128))
    return plan.replace(workload=plan.workload.replace(seq_len=seq_len))


def texts(batch: tuple[object, object]) -> list[str]:
    inputs, _ = batch
    return [bytes(row).rstrip(b"\0").decode() for row in inputs.tolist()]  # type: ignore[attr-defined]


@given(st.sampled_from([SHORTEST, 48, 96]), st.integers(0, 1000), st.booleans())
def test_a_row_holds_one_pair_and_says_its_second_half(
    seq_len: int, step: int, held_out: bool
) -> None:
    task = Translation(plan_of(seq_len), 3)
    batch = task.held_out_batch(step, 1) if held_out else task.training_batch(step)
    inputs, targets = batch
    assert inputs.shape == targets.shape == (24, seq_len)
    for row, said in zip(texts(batch), targets.tolist(), strict=True):
        source, _, target = row.partition("=")
        assert bytes(said).strip(b"\0").decode() == target.rstrip("\n") + "\n"
        assert said[: len(source)] == [0] * len(source)
        digits = source if source[0].isdecimal() else target.rstrip("\n")
        assert is_held_out(digits) == held_out


def test_an_encoder_reads_what_a_decoder_translates() -> None:
    plan = plan_of(48)
    two = Translation(plan.replace(model=MODELS["t5"], stages=make_plan("t5").stages), 0)
    (whole, _), (inputs, targets) = Translation(plan, 0).training_batch(5), two.training_batch(5)
    for row, (source, written), said in zip(
        texts((whole, None)), inputs.tolist(), targets.tolist(), strict=True
    ):
        both = bytes(source).strip(b"\0") + bytes(written).strip(b"\0")
        assert row.rstrip("\n") == both.decode()
        assert bytes(written).strip(b"\0")[1:] == bytes(said).strip(b"\0")[:-1]


def test_batches_depend_on_seed_step_and_row_alone() -> None:
    first, again = (Translation(plan_of(48), seed).training_batch(5)[0] for seed in (0, 0))
    assert first.equal(again)
    assert not first.equal(Translation(plan_of(48), 1).training_batch(5)[0])
    assert not first.equal(Translation(plan_of(48), 0).training_batch(6)[0])


def test_a_row_is_right_when_every_byte_after_the_sign_is() -> None:
    task = Translation(plan_of(48), 0)
    _, targets = task.held_out_batch(0, 1)
    noise = targets.clone()
    noise[targets == 0] = 7
    assert task.value(0.0, [(noise, targets)]) == 1.0
    row = targets[0].nonzero()[-1]
    noise[0, row] = 7
    assert task.value(0.0, [(noise, targets)]) == pytest.approx(23 / 24)


def test_short_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"seq_len=16 is too short .* --seq-len 32 or more"):
        tasks.check("translation", plan_of(16))
