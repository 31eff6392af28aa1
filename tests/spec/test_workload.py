"""Workload: the tokens of a step and the bytes of a number."""

from typing import get_args

from planner.spec.workload import DTYPE_BYTES, Dtype, Workload, stored_dtype


def test_tokens_of_a_step():
    assert Workload(seq_len=2048, global_batch=16).tokens == 32_768


def test_every_number_format_has_a_size():
    assert {*DTYPE_BYTES, "fp4"} == set(get_args(Dtype))  # nothing is stored in fp4 alone
    assert all(stored_dtype(each) in DTYPE_BYTES for each in get_args(Dtype))
