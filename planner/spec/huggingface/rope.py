"""Rotary positions: their base and how many columns of a head rotate.

transformers 4 writes rope_theta (GPT-NeoX: rotary_emb_base) and partial_rotary_factor (GPT-NeoX:
rotary_pct) beside the sizes; transformers 5 writes both into rope_parameters, for the whole
model or once per type of layer. What stands in rope_parameters counts more. Gemma 3 in the shape
of transformers 4 has rope_theta for full layers and rope_local_base_freq for sliding ones.
Left out: rope scaling, which changes neither parameters nor FLOPs.
"""

from collections.abc import Mapping
from typing import Any

from planner.spec.huggingface.keys import WAY_OUT, Keys

FULL, SLIDING = "full_attention", "sliding_attention"


def theta(keys: Keys, missing: float = 10_000.0, older: str = "rope_theta") -> float:
    """The base of the rotary positions, one for all layers."""
    rope = keys.part("rope_parameters")
    top = keys.data.get(older, missing)
    thetas = [part.get("rope_theta", top) for part in _by_layer_type(rope) or [rope]]
    if any(value != thetas[0] for value in thetas):
        keys.refuse("rope_parameters", f"rope_theta differs by layer: {thetas}; {WAY_OUT}")
    return keys.above_zero(older, thetas[0], missing)


def thetas_by_type(keys: Keys) -> dict[str, float]:
    """The bases of Gemma 3's full and sliding layers."""
    tops = {FULL: ("rope_theta", 1e6), SLIDING: ("rope_local_base_freq", 1e4)}
    found = {}
    for layer_type, (older, missing) in tops.items():
        part = keys.part("rope_parameters").get(layer_type)
        part = part if isinstance(part, Mapping) else {}
        value = part.get("rope_theta", keys.data.get(older, missing))
        found[layer_type] = keys.above_zero(older, value, missing)
    return found


def rotated(
    keys: Keys, head_dim: int, missing: float = 1.0, older: str = "partial_rotary_factor"
) -> int:
    """Columns of a head that rotate: a share of head_dim, rounded down."""
    rope = keys.part("rope_parameters")
    value = rope.get("partial_rotary_factor", keys.data.get(older, missing))
    share = keys.above_zero(older, value, missing)
    if share > 1:
        keys.refuse(older, f"{share} is more than 1, the whole head")
        return 0
    columns = int(head_dim * share)
    if columns % 2:
        keys.contradict(
            older,
            f"{share} of head_dim {head_dim} is {columns} columns; an even number must rotate",
        )
    return columns


def _by_layer_type(rope: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in rope.values() if isinstance(part, Mapping)]
