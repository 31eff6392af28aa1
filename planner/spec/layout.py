"""Layout: the degrees of the division. Stage: one pipeline stage with its layers' choices."""

from typing import Any

import pydantic

from planner.spec import documents
from planner.spec.documents import Frozen, InputError
from planner.spec.runtime import (
    AXES,
    Axis,
    ContextStyle,
    Recompute,
    Schedule,
    Synchronisation,
    check_axis_order,
)

Degree = pydantic.Field(default=1, ge=1)


class Layout(Frozen):
    """How a step is divided: degrees, microbatch, ZeRO stage, recompute and schedule.

    micro_batch: sequences of one microbatch on one dp rank. axis_order: innermost axis first.
    etp: ranks that share every expert; ep * etp divides tp * cp * dp. cp_style: how attention
    sees all keys. shard: ranks that ZeRO divides one copy of the states over (hybrid sharding;
    all replicas without it). sync: how replicas agree on gradients.
    """

    dp: int = Degree
    tp: int = Degree
    pp: int = Degree
    cp: int = Degree
    ep: int = Degree
    etp: int = Degree
    vpp: int = Degree
    micro_batch: int = Degree
    zero: int = pydantic.Field(default=0, ge=0, le=3)
    recompute: Recompute = "none"
    schedule: Schedule = "1f1b"
    axis_order: tuple[Axis, ...] = AXES
    cp_style: ContextStyle = "ring"
    shard: int | None = pydantic.Field(default=None, ge=1)
    sync: Synchronisation = "all_reduce"

    @pydantic.field_validator("axis_order", mode="before")
    @classmethod
    def _read_axis_order(cls, value: Any) -> Any:
        return tuple(value.split("-")) if isinstance(value, str) else value

    @pydantic.field_validator("axis_order")
    @classmethod
    def _every_axis_once(cls, value: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return check_axis_order(value)

    @property
    def devices(self) -> int:
        """Ranks that the layout needs (ep lives inside dp)."""
        return self.dp * self.tp * self.pp * self.cp

    def microbatches(self, global_batch: int) -> int:
        """Microbatches per step on one dp rank. Raises InputError when they do not divide."""
        per_microbatch = self.dp * self.micro_batch
        if global_batch % per_microbatch:
            below = global_batch // per_microbatch * per_microbatch
            near = f"{below} and {below + per_microbatch}" if below else f"{per_microbatch}"
            raise InputError(
                f"global_batch={global_batch} is not a multiple of dp*micro_batch="
                f"{self.dp}*{self.micro_batch}={per_microbatch}; change one of the three (global "
                f"batches near it: {near})"
            )
        return global_batch // per_microbatch

    def axis_sizes(self) -> tuple[tuple[str, int], ...]:
        """The mesh axes with their sizes, innermost first (ep is folded into dp)."""
        sizes = {"tp": self.tp, "cp": self.cp, "dp": self.dp, "pp": self.pp}
        return tuple((axis, sizes[axis]) for axis in self.axis_order if axis in sizes)

    def coordinates(self, rank: int) -> dict[str, int]:
        """Where a rank sits on every mesh axis."""
        assert 0 <= rank < self.devices, f"rank {rank} of {self.devices}"
        place: dict[str, int] = {}
        for axis, size in self.axis_sizes():
            rank, place[axis] = divmod(rank, size)
        return place

    def rank_of(self, **place: int) -> int:
        """The rank at the given coordinates (axes left out are 0)."""
        assert set(place) <= {axis for axis, _ in self.axis_sizes()}, place
        rank, stride = 0, 1
        for axis, size in self.axis_sizes():
            rank += place.get(axis, 0) * stride
            stride *= size
        return rank

    def group(self, rank: int, axis: Axis) -> tuple[int, ...]:
        """All ranks that differ from `rank` only on `axis`, in axis order."""
        place = self.coordinates(rank)
        size = dict(self.axis_sizes())[axis]
        return tuple(self.rank_of(**{**place, axis: i}) for i in range(size))

    def stride(self, axis: Axis) -> int:
        """Distance in ranks between neighbours on an axis."""
        stride = 1
        for name, size in self.axis_sizes():
            if name == axis:
                return stride
            stride *= size
        raise KeyError(axis)

    def __str__(self) -> str:
        names = ("dp", "tp", "pp", "cp", "ep", "etp", "vpp")
        degrees = [f"{name}={getattr(self, name)}" for name in names]
        shown = [text for text in degrees if not text.endswith("=1")] or ["dp=1"]
        shown += [f"micro_batch={self.micro_batch}", f"zero={self.zero}"]
        shown += [f"recompute={self.recompute}"]
        if self.pp > 1 or self.schedule != "1f1b":
            shown.append(f"schedule={self.schedule}")
        if self.axis_order != AXES:
            shown.append(f"axis_order={'-'.join(self.axis_order)}")
        if self.cp > 1 and self.cp_style != "ring":
            shown.append(f"cp_style={self.cp_style}")
        if self.shard:
            shown.append(f"shard={self.shard}")
        if self.sync != "all_reduce":
            shown.append(f"sync={self.sync}")
        return " ".join(shown)

    @staticmethod
    def parse(text: str) -> "tuple[Layout, tuple[int, ...] | None]":
        """Read `dp=8 tp=8 pp=4 micro_batch=1 zero=1 stages=5,5,6,6`.

        Returns the layout and, if `stages` is given, the layers of each stage.
        Raises InputError.
        """
        values: dict[str, str] = {}
        for word in text.replace(",\n", " ").split():
            key, sign, value = word.partition("=")
            if not sign:
                raise InputError(f"--layout: {word!r} is not key=value; write dp=2 tp=4 pp=1")
            key = key.replace("-", "_")
            if key in values:
                raise InputError(f"--layout: {key} is given twice; keep one of them")
            values[key] = value
        stages = values.pop("stages", None)
        return _validated(values), None if stages is None else _counts(stages)


def _validated(values: dict[str, str]) -> Layout:
    try:
        return Layout.model_validate(values)
    except pydantic.ValidationError as error:
        raise InputError(documents.explain(Layout, error, "--layout")) from None


def _counts(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--layout: stages={text!r}; write layers per stage: 5,5,6,6")
    return tuple(int(word) for word in words)


def title(
    layout: Layout, counts: tuple[int, ...], recomputed: tuple[int, ...] | None = None
) -> str:
    """A division in one line: its degrees, the layers per stage where they are uneven, and how
    many of them recompute where not all do."""
    text = str(layout)
    if counts != even_counts(sum(counts), len(counts)):
        text += f" stages={','.join(map(str, counts))}"
    if recomputed is not None and layout.recompute != "none" and recomputed != counts:
        text += f" recomputed={','.join(map(str, recomputed))}"
    return text


class LayerChoice(Frozen):
    """What one layer chooses for itself."""

    recompute: Recompute = "none"
    zero: int = pydantic.Field(default=0, ge=0, le=3)


class Stage(Frozen):
    """One pipeline stage: consecutive layers with their own degrees and choices.

    first_layer and the choices say which layers; a stage may hold none (only the embedding or
    the head). The first stage of a plan holds the embedding, the last the head and the loss.
    """

    first_layer: int = pydantic.Field(ge=0)
    layers: tuple[LayerChoice, ...]
    dp: int = Degree
    tp: int = Degree
    cp: int = Degree
    ep: int = Degree


def make_stages(
    layout: Layout, counts: tuple[int, ...], recomputed: tuple[int, ...] | None = None
) -> tuple[Stage, ...]:
    """Stages with the given numbers of layers and the layout's choices.

    recomputed: how many layers of each stage recompute, from its front; all of them without it.
    """
    choice = LayerChoice(recompute=layout.recompute, zero=layout.zero)
    plain = LayerChoice(recompute="none", zero=layout.zero)
    again = counts if recomputed is None else recomputed
    degrees = {"dp": layout.dp, "tp": layout.tp, "cp": layout.cp, "ep": layout.ep}
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    return tuple(
        Stage(first_layer=first, layers=(choice,) * some + (plain,) * (count - some), **degrees)
        for first, count, some in zip(firsts, counts, again, strict=True)
    )


def even_counts(layers: int, pp: int) -> tuple[int, ...]:
    """Layers per stage as even as can be; stages in the middle get the remainder first."""
    base, extra = divmod(layers, pp)
    middle = sorted(range(pp), key=lambda i: (i in (0, pp - 1), i))
    counts = [base] * pp
    for stage in middle[:extra]:
        counts[stage] += 1
    return tuple(counts)
