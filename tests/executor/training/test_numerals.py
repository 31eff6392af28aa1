import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.training import numerals

VALUES = {word: value for value, word in enumerate(numerals.ONES)} | {
    word: 10 * index for index, word in enumerate(numerals.TENS)
}


def value_of(words: str) -> int:
    """Reads numbers back, the other way round: word by word."""
    total = part = 0
    for word in words.replace("-", " ").split():
        if word == "thousand":
            total, part = part * 1000, 0
        elif word == "hundred":
            part *= 100
        else:
            part += VALUES[word]
    return total + part


@given(st.integers(0, 999_999))
def test_words_of_a_number_are_read_back(value: int) -> None:
    assert value_of(numerals.number(value)) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (11, "eleven"),
        (90, "ninety"),
        (742_016, "seven hundred forty-two thousand sixteen"),
        (100_000, "one hundred thousand"),
    ],
)
def test_numbers(value: int, words: str) -> None:
    assert numerals.number(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(1, "first"), (12, "twelfth"), (20, "twentieth"), (31, "thirty-first")]
)
def test_ordinals(value: int, words: str) -> None:
    assert numerals.ordinal(value) == words


def test_dates() -> None:
    assert numerals.date(1999, 3, 3) == "the third of March nineteen hundred ninety-nine"
    assert numerals.date(2000, 12, 8) == "the eighth of December twenty hundred"
