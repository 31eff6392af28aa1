"""Entry: MODULE:FUNCTION, the user's code that builds what is to be captured.

MODULE is an importable module (the current folder counts) or the path of a .py file. FUNCTION
takes no arguments and returns the module with example inputs, in one of these forms:

    module, (input, ...)
    module, {"keyword": input, ...}
    module, (input, ...), {"keyword": input, ...}

It is called where every tensor is fake: shapes and dtypes without storage, so a model of any
size costs no memory, and no value can be read.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from planner.spec.documents import InputError

FORMS = "(module, args), (module, kwargs) or (module, args, kwargs)"


@dataclass(frozen=True)
class Example:
    """A module and the inputs it is called with."""

    module: torch.nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def find(place: str) -> Callable[[], Any]:
    """The function that MODULE:FUNCTION names. Raises InputError."""
    source, colon, name = place.rpartition(":")
    if not (colon and source and name):
        raise InputError(
            f"capture: {place!r} is not MODULE:FUNCTION; write package.module:function or "
            f"path/to/file.py:function"
        )
    module = _from_file(Path(source)) if source.endswith(".py") else _by_name(source)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if _own_function(module, key, value)]
        raise InputError(
            f"capture: {source} has no function {name!r}"
            + (f"; it has {', '.join(known)}" if known else "")
        )
    entry: Callable[..., Any] = found
    return entry


def _own_function(module: ModuleType, name: str, value: Any) -> bool:
    own = getattr(value, "__module__", None) == module.__name__
    return callable(value) and not isinstance(value, type) and own and name[0] != "_"


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"capture: {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"_captured_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[spec.name] = module  # dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[spec.name]
        raise _broken(str(path), error) from error
    return module


def _by_name(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise InputError(
                f"capture: no module {error.name!r}; give an importable module, or the path of "
                f"a .py file"
            ) from None
        raise _broken(name, error) from error
    except Exception as error:  # the user's code may raise anything
        raise _broken(name, error) from error


def _broken(where: str, error: Exception) -> InputError:
    return InputError(f"capture: {where} cannot be imported: {type(error).__name__}: {error}")


def read(returned: Any, place: str) -> Example:
    """What the user's function returned, as an example. Raises InputError."""
    if isinstance(returned, torch.nn.Module):
        raise InputError(
            f"capture: {place} returned a module without example inputs; return {FORMS}"
        )
    parts = list(returned) if isinstance(returned, tuple | list) else []
    if not 2 <= len(parts) <= 3 or not isinstance(parts[0], torch.nn.Module):
        raise InputError(
            f"capture: {place} returned {_shown(returned)}; return {FORMS}, where module is a "
            f"torch.nn.Module"
        )
    if len(parts) == 2 and isinstance(parts[1], dict):
        parts.insert(1, ())
    args = (parts[1],) if isinstance(parts[1], torch.Tensor) else parts[1]
    kwargs = parts[2] if len(parts) == 3 else {}
    if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
        raise InputError(
            f"capture: {place} returned args {_shown(args)} and kwargs {_shown(kwargs)}; return "
            f"{FORMS}, where args is a tuple and kwargs a dict"
        )
    return Example(parts[0], tuple(args), dict(kwargs))


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of ({', '.join(type(v).__name__ for v in value)})"
    return type(value).__name__
