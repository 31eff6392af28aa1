"""Divisors: those of a size, why a degree is none of them, and which degrees near it are.

ep=9 does not divide experts=32; 8 and 16 do
"""

from functools import lru_cache


def divisors(n: int) -> list[int]:
    """All divisors of n, ascending."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


@lru_cache(maxsize=4096)
def near(degree: int, size: int) -> tuple[int, ...]:
    """The largest divisor of a size below a degree and the smallest above it, if there are any."""
    below = [d for d in divisors(size) if d < degree]
    above = [d for d in divisors(size) if d > degree]
    return (*below[-1:], *above[:1])


def not_divided(said: str, degree: int, key: str, size: int, within: int = 1) -> str:
    """Why a degree is refused. said: the degree as the user wrote it; within: what divides the size
    besides it."""
    why = f"{said} does not divide {key}={size}"
    if size < 1 or size % within:
        return why
    other = " and ".join(map(str, near(degree, size // within)))
    return f"{why}; {other} {'do' if ' ' in other else 'does'}" if other else why
