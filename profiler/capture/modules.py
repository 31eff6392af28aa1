"""Modules: which module an exported node was called from.

torch.export notes on every node the stack of modules that were being called, outermost first:
key -> (dotted name, class), where the key of a module's second and further calls ends in
`@1`, `@2`, ... A path repeats the number once, at the outermost module that was called again
(`layer@3.attention.query`), so that the calls of a shared layer compare equal below it.
"""

from typing import Any

ROOT = "captured"
"""Name under which the traced wrapper holds the user's module."""


def path_of(node: Any) -> str | None:
    """The path of the module that called a node, `` for the outermost, None if unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    path, before, number = "", "", ""
    for key, (name, _) in stack.items():
        called = _number(str(key))
        if not name:
            continue
        deeper = not before or name.startswith(before + ".")
        path = path + name[len(before) :] if deeper else name
        path += called if called != number or not deeper else ""
        before, number = name, called or (number if deeper else "")
    inner = path.removeprefix(ROOT).removeprefix(".")
    return inner if path.startswith(ROOT) else None


def _number(key: str) -> str:
    """`@2` of a third call, `` of a first one."""
    _, at, digits = key.rpartition("@")
    return f"@{digits}" if at and digits.isdigit() else ""
