"""Results: a Measured as rows for people and as the JSON value that `run` prints."""

from typing import Any

from planner.spec.measured import Measured
from planner.spec.units import format_bytes, format_seconds


def as_json(measured: Measured) -> dict[str, Any]:
    """The measured/1 value without its timeline."""
    return measured.model_dump(mode="json", exclude={"timeline"})


def title(measured: Measured) -> str:
    """One line: the layout and the step time."""
    times = measured.step_seconds
    return (
        f"{measured.layout} on {measured.world_size} ranks ({measured.backend}): step "
        f"{format_seconds(times.median)} (from {format_seconds(times.min)} to "
        f"{format_seconds(times.max)} over {len(times.steps)} steps), loss "
        f"{measured.loss[0]:.4f} -> {measured.loss[-1]:.4f}"
    )


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per rank: its place and its memory."""
    return [
        {
            "rank": rank,
            **{axis: place[axis] for axis in ("dp", "tp", "pp")},
            "peak tensors": format_bytes(measured.peak_bytes[rank]),
            "resident": format_bytes(measured.resident_bytes[rank]),
        }
        for rank in range(measured.world_size)
        for place in (measured.layout.coordinates(rank),)
    ]
