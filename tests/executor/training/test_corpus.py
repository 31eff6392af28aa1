from hypothesis import given
from hypothesis import strategies as st

from executor.training import corpus
from executor.training.language import Language
from tests.examples import gpt2_like
from tests.executor.plans import GLOBAL_BATCH, SEQ_LEN, make_plan


def test_both_halves_hold_the_sources() -> None:
    text = corpus.read()
    names = [name for name, _ in corpus.source_files()]
    assert "random.py" in names
    assert not any("site-packages" in name or name.startswith("test/") for name in names)
    held_out = sum(map(corpus.is_held_out, names))
    assert 0.02 * len(names) < held_out < 0.1 * len(names)
    assert int((text.held_out == 0).sum()) == held_out
    assert int((text.training == 0).sum()) == len(names) - held_out
    source = bytes(text.training.tolist()[:50_000]).partition(b"\0")[0]
    first = next(path for name, path in corpus.source_files() if not corpus.is_held_out(name))
    assert first.read_bytes().startswith(source)


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_batches_depend_on_seed_and_step_alone(step: int, seed: int) -> None:
    plan = make_plan(gpt2_like(vocab=256))
    inputs, targets = Language(plan, seed).training_batch(step)
    again = Language(plan.replace(layout=plan.layout.replace(dp=2)), seed).training_batch(step)
    assert inputs.equal(again[0])
    assert inputs.shape == targets.shape == (GLOBAL_BATCH, SEQ_LEN)
    assert inputs[:, 1:].equal(targets[:, :-1])
    assert not inputs.equal(Language(plan, seed).training_batch(step + 1)[0])


def test_held_out_windows_cover_the_held_out_text() -> None:
    task = Language(make_plan(gpt2_like(vocab=256)), 0)
    text = corpus.read().held_out
    first, _ = task.held_out_batch(0, 2)
    last, _ = task.held_out_batch(1, 2)
    assert first[0].equal(text[:SEQ_LEN].long())
    assert not first.equal(last)
