"""Actions print and parse back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.schedule.action import WHOLE_STAGE, Action, Kind

kinds = st.sampled_from(sorted(Kind))
indices = st.integers(0, 4000)


@given(indices, kinds, indices)
def test_parse_is_the_inverse_of_str(stage: int, kind: Kind, microbatch: int) -> None:
    action = Action(stage, kind, None if kind in WHOLE_STAGE else microbatch)
    assert Action.parse(str(action)) == action


def test_notation_is_torchs() -> None:
    assert str(Action(2, Kind.FORWARD, 0)) == "2F0"
    assert str(Action(1, Kind.SEND_FORWARD, 3)) == "1SEND_F3"
    assert str(Action(0, Kind.REDUCE_GRADIENT)) == "0REDUCE_GRAD"


@pytest.mark.parametrize("text", ["", "F0", "2X1", "2F", "2REDUCE_GRAD1", "-1F0", "2F0 3"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"action|microbatch"):
        Action.parse(text)
