"""Quantities with units at the door, SI numbers inside.

A quantity is written `80GiB`, `900GB/s`, `400Gb/s`, `989TFLOP/s` or `5us` and is read into
bytes, bytes per second, FLOP per second or seconds. Bits (`b`) and bytes (`B`) differ by
eight; `Gi` is 2**30 and `G` is 10**9. A bare number has no unit and is refused: whether
`900` means GB/s, Gb/s or B/s is the commonest mistake in machine descriptions.
"""

import re

PREFIXES = {
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}
SECONDS = {
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
    "min": 60.0,
    "h": 3600.0,
}

NUMBER = r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*"
BYTES = re.compile(NUMBER + r"([KMGTPE]i|[kKMGTPE]?)(B|b)$")
RATE = re.compile(NUMBER + r"([KMGTPE]i|[kKMGTPE]?)(B|b)(?:/s|ps)$")
FLOPS = re.compile(NUMBER + r"([kKMGTPE]?)(?:FLOP/s|FLOPS|FLOPs/s|flop/s)$")
TIME = re.compile(NUMBER + r"(s|ms|us|µs|ns|min|h)$")


class UnitError(ValueError):
    """A quantity that cannot be read without guessing its unit."""


def parse_bytes(text: str) -> float:
    """Read `80GiB`, `512 MB` or `1.5kB` as bytes. Raises UnitError."""
    return _scaled(BYTES, text, "a size such as 80GiB or 512MB")


def parse_bytes_per_second(text: str) -> float:
    """Read `900GB/s` or `400Gb/s` as bytes per second. Raises UnitError."""
    return _scaled(RATE, text, "a bandwidth such as 900GB/s (bytes) or 400Gb/s (bits)")


def parse_flops(text: str) -> float:
    """Read `989TFLOP/s` as floating-point operations per second. Raises UnitError."""
    match = FLOPS.match(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is not a speed with a unit; write it as 989TFLOP/s")
    return float(match[1].replace("_", "")) * PREFIXES[match[2]]


def parse_seconds(text: str) -> float:
    """Read `5us`, `3 ms` or `2h` as seconds. Raises UnitError."""
    match = TIME.match(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is not a time with a unit; write it as 5us, 3ms or 2s")
    return float(match[1].replace("_", "")) * SECONDS[match[2]]


def _scaled(pattern: re.Pattern[str], text: str, example: str) -> float:
    match = pattern.match(text.strip())
    if match is None:
        raise UnitError(f"{text!r} has no unit that can be read; write {example}")
    bits = 8.0 if match[3] == "b" else 1.0
    return float(match[1].replace("_", "")) * PREFIXES[match[2]] / bits


def format_bytes(value: float) -> str:
    """Print bytes for people: 1.5 GiB, 12.0 MiB, 640 B."""
    for prefix in ("Ti", "Gi", "Mi", "Ki"):
        if abs(value) >= PREFIXES[prefix]:
            return f"{value / PREFIXES[prefix]:.1f} {prefix}B"
    return f"{value:.0f} B"


def format_rate(value: float) -> str:
    """Print bytes per second for people: 3352 GB/s, 24.5 GB/s."""
    return f"{value / 1e9:.4g} GB/s"


def format_seconds(value: float) -> str:
    """Print seconds for people: 2.31 s, 14.2 ms, 5.0 us."""
    if abs(value) >= 1.0:
        return f"{value:.2f} s"
    if abs(value) >= 1e-3:
        return f"{value * 1e3:.1f} ms"
    return f"{value * 1e6:.1f} us"


def format_interval(low: float, high: float) -> str:
    """Print two ends, a shared unit once: 2.81-3.73 s, 786.2 ms-1.04 s."""
    first, last = format_seconds(low), format_seconds(high)
    number, _, unit = first.partition(" ")
    return f"{number if last.endswith(f' {unit}') else first}-{last}"


def format_count(value: float) -> str:
    """Print a count for people: 8.03 B, 124.4 M, 512."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.4g} {letter}"
    return f"{value:g}"
