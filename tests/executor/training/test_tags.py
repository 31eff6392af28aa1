import pytest
import torch

from executor.training import tags
from executor.training.tags import CLASSES, Tags, classes_of
from planner.spec.documents import InputError
from tests.examples import gpt2_like
from tests.executor.plans import SEQ_LEN, make_plan

SOURCE = b"""\
def twice(x):  # doubles
    '''Two
    lines.'''
    return 2 * x
"""
SHORT = {"blank": ".", "keyword": "k", "name": "n", "number": "0", "string": "s"} | {
    "operator": "o",
    "comment": "c",
}
EXPECTED = """\
kkk.nnnnnonoo..ccccccccc.
....ssssssssssssssssssss.
....kkkkkk.0.o.n.
"""


def test_every_byte_has_the_class_of_its_token() -> None:
    found = "".join(SHORT[CLASSES[kind]] for kind in classes_of(SOURCE))
    assert found == EXPECTED.replace("\n", "")


def test_halves_hold_whole_files_of_other_names() -> None:
    training, held_out, _ = tags.read()
    assert len(training.text) == len(training.classes) >= tags.TRAINING_BYTES
    assert len(held_out.text) >= tags.HELD_OUT_BYTES
    counts = torch.bincount(training.classes.long(), minlength=len(CLASSES))
    assert (counts > 1000).all()
    keyword = training.classes == CLASSES.index("keyword")
    assert b"import" in bytes(training.text[keyword].tolist())


def test_the_metric_is_the_mean_over_classes() -> None:
    task = Tags(make_plan(gpt2_like(vocab=256)), 0)
    targets = torch.tensor([[0, 0, 0, 1]])
    assert task.value(0.0, [(targets, targets)]) == 1.0
    predicted = torch.tensor([[0, 0, 1, 1]])
    assert task.value(0.0, [(predicted, targets)]) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_batches_hold_the_classes_of_their_bytes() -> None:
    task = Tags(make_plan(gpt2_like(vocab=256)), 0)
    for inputs, targets in (task.training_batch(3), task.held_out_batch(1, 2)):
        assert inputs.shape == targets.shape
        assert inputs.shape[1] == SEQ_LEN
        blank = (inputs == ord(" ")) & (targets != CLASSES.index("string"))
        kinds = set(targets[blank].tolist())
        assert kinds <= {CLASSES.index("blank"), CLASSES.index("comment")}


def test_a_small_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="vocab=97 is too small for the task tags"):
        Tags.check(make_plan("gpt2"))
