"""Trained: what training a model for a task came to."""

import pydantic

from planner.spec.cluster import Backend
from planner.spec.documents import Document
from planner.spec.layout import Layout
from planner.spec.profile import Machine


class Trained(Document):
    """One training that reached its end.

    metric, value: on held-out data, of which held_out_loss is the mean loss. loss and
    gradient_norm per step (the norm before clipping). seconds: of the steps of the last start,
    first_step being its first; data: identifies what was trained on.
    """

    SCHEMA = "trained/1"

    task: str
    metric: str
    value: float
    held_out_loss: float
    model: str
    layout: Layout
    layer_counts: tuple[int, ...]
    steps: int = pydantic.Field(ge=1)
    first_step: int = pydantic.Field(ge=0)
    loss: tuple[float, ...]
    gradient_norm: tuple[float, ...]
    seconds: float = pydantic.Field(ge=0)
    world_size: int = pydantic.Field(ge=1)
    backend: Backend
    data: str
    machine: Machine
