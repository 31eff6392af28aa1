"""--where: selects what it says, knows unknown cells, and executes nothing."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner.spec.documents import InputError
from planner.spec.runs.run import COLUMNS, Run
from planner.spec.runs.where import LONGEST, compile_where

RUN = Run(
    file="x", line=2, model="gpt-5b", gpu="A100-80GB", n_gpus=64, tp=8, mfu_pct=12.5, fsdp=True
)


def selects(text: str, run: Run = RUN) -> bool:
    return compile_where(text)(run)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n_gpus<=64 and mfu_pct>=10", True),
        ("n_gpus < 64", False),
        ("n_gpus != 64 or tp == 8", True),
        ("1 < tp <= 8", True),
        ("1 < tp < 8", False),
        ("not (tp == 8)", False),
        ('model == "gpt-5b"', True),
        ("model != 'gpt-5b'", False),
        ('model in ("gpt-5b", "gpt-20b")', True),
        ("tp in [1, 2, 4]", False),
        ("tp not in (1, 2, 4)", True),
        ('"A100" in gpu', True),
        ('"H100" not in gpu', True),
        ("fsdp", True),
        ("fsdp == False", False),
        ("fsdp == 1", True),
        ("mfu_pct > -1.5e0", True),
        ("64 == n_gpus", True),
        ("n_gpus == tp", False),
        ("True", True),
    ],
)
def test_an_expression_selects_what_it_says(text: str, expected: bool) -> None:
    assert selects(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dp >= 1", False),
        ("not dp >= 1", False),
        ("dp == 1 or tp == 8", True),
        ("dp == 1 and tp == 8", False),
        ("not (dp == 1 and tp == 4)", True),
        ("dp in (1, 2)", False),
        ("dp not in (1, 2)", False),
        ('"x" in notes', False),
        ("warning", False),
        ("not warning", False),
    ],
)
def test_an_unknown_cell_is_neither_true_nor_false(text: str, expected: bool) -> None:
    assert selects(text) is expected


@given(st.integers(-(10**9), 10**9), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
def test_comparisons_are_those_of_numbers(value: int, sign: str) -> None:
    gap = 64 - value
    expected = {
        "<": gap < 0,
        "<=": gap <= 0,
        ">": gap > 0,
        ">=": gap >= 0,
        "==": gap == 0,
        "!=": gap != 0,
    }[sign]
    assert selects(f"n_gpus {sign} {value}") is expected


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_can_be_asked_for(column: str) -> None:
    assert callable(compile_where(f"{column} in ({column},)"))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0]",
        "n_gpus.__class__ == 1",
        "open('x')",
        "print",
        "len(model) > 1",
        "[tp for tp in (1, 2)] == 1",
        "(lambda: 1) == 1",
        "1 if tp else 2",
        "n_gpus if fsdp else tp",
        "f'{n_gpus}' == 'x'",
        "n_gpus[0] == 1",
        "2 ** 9 ** 9 > n_gpus",
        "n_gpus + 1 > 2",
        "(x := 1) == 1",
        "b'x' == 1",
        "1j < tp",
        "None == tp",
        "... == tp",
        "tp is 8",
        "tp; tp",
        "tp = 8",
        "import os",
        "await tp",
        "yield tp",
        "*tp",
        "{1: tp}",
        "model in gpu.lower()",
        "-model == 1",
        "~tp == 1",
    ],
)
def test_nothing_but_the_language_is_read(text: str) -> None:
    with pytest.raises(InputError, match="--where"):
        compile_where(text)


@given(st.text(max_size=60))
@example("(" * LONGEST)
@example("not " * (LONGEST // 4))
@example("-" * LONGEST)
@example("a" * (LONGEST + 1))
@example("tp\x00")
@example("\ud800")
def test_any_text_is_an_expression_or_an_input_error(text: str) -> None:
    try:
        test = compile_where(text)
    except InputError:
        return
    assert test(RUN) in (True, False)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("n_gpu <= 8", "did you mean 'n_gpus'"),
        ("colour == 1", "columns are source, model"),
        ("n_gpus == 'eight'", "Quote text, do not quote numbers"),
        ("model == gpt", "quote text"),
        ("model < 'b'", "has no order"),
        ("n_gpus", "alone is no condition"),
        ("8 in n_gpus", "write a list in parentheses"),
        ("", "cannot be read"),
        ("tp ==", "cannot be read"),
    ],
)
def test_a_wrong_expression_says_what_to_write(text: str, part: str) -> None:
    with pytest.raises(InputError) as error:
        compile_where(text)
    assert part in str(error.value)


def test_an_expression_is_one_test_for_many_runs() -> None:
    chosen: Any = compile_where("tp == 8")
    assert [chosen(Run(file="x", line=i, tp=i)) for i in (4, 8)] == [False, True]
