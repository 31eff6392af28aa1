"""Scales: one readable unit for all numbers of a figure."""

from dataclasses import dataclass

TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
SIZES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))


@dataclass(frozen=True, slots=True)
class Scale:
    """value in SI / factor = value in unit."""

    factor: float
    unit: str

    def of(self, value: float) -> float:
        """The value in this unit."""
        return value / self.factor

    def text(self, value: float) -> str:
        """The value with three digits and the unit."""
        number = value / self.factor
        return f"{number:.0f} {self.unit}" if abs(number) >= 100 else f"{number:.3g} {self.unit}"


def time_scale(largest_seconds: float) -> Scale:
    """s, ms or us, so that the largest value is at least one."""
    return _scale(TIMES, largest_seconds, Scale(1e-6, "us"))


def size_scale(largest_bytes: float) -> Scale:
    """TiB, GiB, MiB, KiB or B, so that the largest value is at least one."""
    return _scale(SIZES, largest_bytes, Scale(1.0, "B"))


def _scale(steps: tuple[tuple[float, str], ...], largest: float, smallest: Scale) -> Scale:
    return next((Scale(f, u) for f, u in steps if largest >= f), smallest)
