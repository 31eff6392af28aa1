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
    if measured.emulated_rank is not None:
        return _emulated_title(measured)
    return (
        f"{measured.layout} on {measured.world_size} ranks ({measured.backend}): step "
        f"{format_seconds(times.median)} (from {format_seconds(times.min)} to "
        f"{format_seconds(times.max)} over {len(times.steps)} steps), loss "
        f"{measured.loss[0]:.4f} -> {measured.loss[-1]:.4f}"
    )


def _emulated_title(measured: Measured) -> str:
    step, waited = measured.step_seconds.median, measured.waited_seconds or 0.0
    return (
        f"{measured.layout}: rank {measured.emulated_rank} of {measured.world_size} alone: "
        f"{format_seconds(step)} a step, of which it waited {format_seconds(waited)} for messages "
        f"as predicted and computed {format_seconds(step - waited)}"
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
        for rank in sorted(measured.peak_bytes)
        for place in (measured.layout.coordinates(rank),)
    ]
