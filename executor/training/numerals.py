"""Numerals: numbers and dates in English words.

0 .. 999,999   seven hundred forty-two thousand sixteen
dates          the third of March nineteen hundred ninety-nine (years 1000 .. 2999)
"""

from collections.abc import Iterator

ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = (
    "-",
    "-",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
)
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def number(value: int) -> str:
    """A number below a million in words."""
    assert 0 <= value < 1_000_000
    return " ".join(_number(value)) or ONES[0]


def ordinal(value: int) -> str:
    """first, second, ... ninety-ninth."""
    stem, dash, last = number(value).rpartition("-")
    if last in IRREGULAR:
        return stem + dash + IRREGULAR[last]
    return stem + dash + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def date(year: int, month: int, day: int) -> str:
    """A date in words."""
    return f"the {ordinal(day)} of {MONTHS[month - 1]} {_year(year)}"


def _year(year: int) -> str:
    """Two pairs of digits, as English speaks them: nineteen hundred ninety-nine."""
    century, rest = divmod(year, 100)
    return f"{number(century)} hundred" + (f" {number(rest)}" if rest else "")


def _number(value: int) -> Iterator[str]:
    if value >= 1000:
        yield from (number(value // 1000), "thousand")
        value %= 1000
    if value >= 100:
        yield from (ONES[value // 100], "hundred")
        value %= 100
    if value >= 20:
        ten, one = divmod(value, 10)
        yield TENS[ten] + (f"-{ONES[one]}" if one else "")
    elif value:
        yield ONES[value]
