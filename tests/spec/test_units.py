"""Quantities: every unit, bits against bytes, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80GiB", 80 * 2**30),
        ("80GB", 80e9),
        ("80 GB", 80e9),
        ("512MB", 512e6),
        ("1.5kB", 1500),
        ("1.5KB", 1500),
        ("8b", 1),
        ("8Gib", 2**30),
        ("1e9B", 1e9),
        ("1E9B", 1e9),
        ("1EB", 1e18),
        ("1_000B", 1000),
        (".5GB", 0.5e9),
        ("0B", 0),
    ],
)
def test_sizes(text, expected):
    assert units.parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("prefix", "power"),
    [
        ("Ki", 10),
        ("Mi", 20),
        ("Gi", 30),
        ("Ti", 40),
        ("Pi", 50),
        ("Ei", 60),
    ],
)
def test_every_binary_prefix_that_the_pattern_accepts_has_a_size(prefix, power):
    assert units.parse_bytes(f"1{prefix}B") == 2**power


@pytest.mark.parametrize(
    ("text", "expected"),
    [("900GB/s", 900e9), ("400Gb/s", 50e9), ("400Gbps", 50e9), ("3.35TB/s", 3.35e12)],
)
def test_bandwidths_know_bits_from_bytes(text, expected):
    assert units.parse_bytes_per_second(text) == expected


@pytest.mark.parametrize("text", ["989TFLOP/s", "989 TFLOPS", "989TFLOPs/s", "0.989PFLOP/s"])
def test_speeds(text):
    assert units.parse_flops(text) == pytest.approx(989e12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5us", 5e-6), ("5µs", 5e-6), ("3 ms", 3e-3), ("2s", 2), ("2h", 7200), ("1min", 60)],
)
def test_times(text, seconds):
    assert units.parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("parse", "text", "example"),
    [
        (units.parse_bytes, "80", "80GiB"),
        (units.parse_bytes, "80GB/s", "80GiB"),
        (units.parse_bytes, "80gb", "80GiB"),
        (units.parse_bytes, "", "80GiB"),
        (units.parse_bytes, "_GB", "80GiB"),
        (units.parse_bytes_per_second, "900", "900GB/s"),
        (units.parse_bytes_per_second, "900GB", "900GB/s"),
        (units.parse_flops, "989", "989TFLOP/s"),
        (units.parse_flops, "989TB/s", "989TFLOP/s"),
        (units.parse_seconds, "5", "5us"),
        (units.parse_seconds, "5 parsecs", "5us"),
    ],
)
def test_refusals_show_the_text_and_how_to_write_it(parse, text, example):
    with pytest.raises(units.UnitError) as caught:
        parse(text)
    assert repr(text) in str(caught.value)
    assert example in str(caught.value)


@given(st.integers(0, 10**9), st.sampled_from(["", "k", "M", "G", "T"]))
def test_a_byte_is_eight_bits(count, prefix):
    assert units.parse_bytes(f"{count}{prefix}B") == 8 * units.parse_bytes(f"{count}{prefix}b")


@given(st.floats(1e-6, 1e15))
def test_printed_bytes_read_back_to_the_printed_precision(value):
    assert units.parse_bytes(units.format_bytes(value)) == pytest.approx(value, rel=0.06, abs=0.5)


@given(st.floats(1e-6, 1e5))
def test_printed_seconds_read_back_to_the_printed_precision(value):
    assert units.parse_seconds(units.format_seconds(value)) == pytest.approx(value, rel=0.06)


def test_printing():
    assert units.format_bytes(1.5 * 2**30) == "1.5 GiB"
    assert units.format_bytes(640) == "640 B"
    assert units.format_seconds(2.314) == "2.31 s"
    assert units.format_seconds(0.0142) == "14.2 ms"
    assert units.format_seconds(5e-6) == "5.0 us"
    assert units.format_count(8_030_261_248) == "8.03 B"
    assert units.format_count(124_439_808) == "124.4 M"
    assert units.format_count(512) == "512"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(2.81, 3.73, "2.81-3.73 s"), (0.7862, 1.042, "786.2 ms-1.04 s"), (2e-6, 3e-6, "2.0-3.0 us")],
)
def test_an_interval_tells_its_unit_once(low: float, high: float, expected: str) -> None:
    assert units.format_interval(low, high) == expected
