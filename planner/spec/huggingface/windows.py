"""Windows: how many keys the queries of each layer see, None for all before them.

By model_type, with what a missing key means:

    mistral, mixtral, phi3   sliding_window on every layer (4096, none, none)
    qwen3_moe                sliding_window (4096) on every layer if use_sliding_window
    qwen2, qwen3             sliding_window (4096) if use_sliding_window, on the layers that
                             layer_types names, else from max_window_layers (28) on
    qwen2_moe                the same, else on layers 0, 2, 4 ... before max_window_layers
    gemma2                   sliding_window (4096) on the layers of layer_types, else 0, 2, 4 ...
    gpt_oss                  sliding_window (128), the same
    gemma3                   the same, else all but each sliding_window_pattern-th (6)
"""

from collections.abc import Callable

from planner.spec.huggingface.keys import WAY_OUT, Keys
from planner.spec.huggingface.rope import FULL, SLIDING

NAMES = {FULL: FULL, SLIDING: SLIDING, "attention": FULL}


def everywhere(keys: Keys, layers: int, missing: int | None) -> list[int | None]:
    """The same window on every layer."""
    return [keys.size("sliding_window", missing=missing, null=None)] * layers


def if_used(keys: Keys, layers: int) -> list[int | None]:
    """The same window on every layer, if use_sliding_window says so."""
    used = keys.flag("use_sliding_window", False)
    return everywhere(keys, layers, 4096) if used else [None] * layers


def qwen(keys: Keys, layers: int, *, alternating: bool = False) -> list[int | None]:
    """Windows of the Qwen family: switched on, and then by layer_types or max_window_layers."""
    used = keys.flag("use_sliding_window", False)
    first = keys.size("max_window_layers", missing=28, least=0)

    def slides(i: int) -> bool:
        return i % 2 == 0 and i < first if alternating else i >= first

    return _of_types(keys, types(keys, layers, slides)) if used else [None] * layers


def alternate(keys: Keys, layers: int, missing: int = 4096) -> list[int | None]:
    """Windows of Gemma 2 and gpt-oss: every second layer sees all."""
    return _of_types(keys, types(keys, layers, lambda i: i % 2 == 0), missing)


def types(keys: Keys, layers: int, slides: Callable[[int], bool]) -> list[str]:
    """The type of every layer: what layer_types says, else sliding where `slides` says."""
    given = keys.listed("layer_types")
    if not keys.has("layer_types"):
        return [SLIDING if slides(i) else FULL for i in range(layers)]
    unknown = [name for name in given if name not in list(NAMES)]
    if unknown:
        keys.refuse(
            "layer_types", f"{unknown[0]!r} is not supported; {FULL} and {SLIDING} are; {WAY_OUT}"
        )
    elif len(given) != layers:
        keys.contradict("layer_types", f"names {len(given)} layers of {layers}")
    else:
        return [NAMES[name] for name in given]
    return [FULL] * layers


def _of_types(keys: Keys, layer_types: list[str], missing: int = 4096) -> list[int | None]:
    window = keys.size("sliding_window", missing=missing, null=None)
    return [window if name == SLIDING else None for name in layer_types]
