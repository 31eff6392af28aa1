import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from executor.states.boxes import boxes


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_are_the_range_in_order(shape: list[int], data: st.DataObject) -> None:
    size = math.prod(shape)
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    whole = torch.arange(size).view(shape)
    found = list(boxes(tuple(shape), start, stop))
    assert len(found) <= 2 * len(shape) - 1
    at = 0
    for box in found:
        part = whole[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))]
        assert box.start == at
        assert part.flatten().tolist() == list(range(start + box.start, start + box.stop))
        at = box.stop
    assert at == stop - start
