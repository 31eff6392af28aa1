"""Kinds: what a span did, in the words, the order and the colours of every table and figure.

The colours are those of Okabe and Ito (2008), which people with any common colour blindness
can tell apart; gradients and optimizer have the same colour where time and where memory is
shown.
"""

from planner.schedule.action import Action, Kind
from planner.spec.timeline import Span

KINDS = ("forward", "backward", "send", "receive", "gradients", "optimizer", "other")
"""Kinds of spans, in the order of a step."""

COMMUNICATION = frozenset({"send", "receive"})

_KIND_OF_ACTION = {
    Kind.FORWARD: "forward",
    Kind.BACKWARD: "backward",
    Kind.INPUT_GRADIENT: "backward",
    Kind.WEIGHT_GRADIENT: "backward",
    Kind.SEND_FORWARD: "send",
    Kind.SEND_BACKWARD: "send",
    Kind.RECEIVE_FORWARD: "receive",
    Kind.RECEIVE_BACKWARD: "receive",
    Kind.UNSHARD: "other",
    Kind.RESHARD: "other",
    Kind.REDUCE_GRADIENT: "gradients",
    Kind.OPTIMIZER: "optimizer",
}

COLOURS = {
    "forward": "#0072B2",
    "backward": "#E69F00",
    "tensor_parallel": "#56B4E9",
    "transfer": "#CC79A7",
    "gradients": "#009E73",
    "optimizer": "#D55E00",
    "stragglers": "#CC79A7",
    "runtime": "#999999",
    "contention": "#F0E442",
    "pipeline": "#DDDDDD",
    "other": "#999999",
    "weights": "#0072B2",
    "activations": "#E69F00",
    "logits": "#CC79A7",
    "buffers": "#56B4E9",
}

LABELS = {"pipeline": "waiting, transfers", "transfer": "send, receive"}


def action_of(span: Span) -> Action | None:
    """The action that a span's name spells, or None where the name is not an action."""
    try:
        return Action.parse(span.name)
    except ValueError:
        return None


def kind_of(span: Span) -> str:
    """One of KINDS; `other` for a span whose name is not an action."""
    action = action_of(span)
    return "other" if action is None else _KIND_OF_ACTION[action.kind]


def label_of(kind: str) -> str:
    """A kind or purpose as people read it."""
    return LABELS.get(kind, kind.replace("_", " "))


def colour_of(kind: str) -> str:
    """The colour of a kind of time or a purpose of memory; grey for one that is unknown."""
    return COLOURS.get(kind, COLOURS["other"])
