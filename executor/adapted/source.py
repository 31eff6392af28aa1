"""Source: a user's own module, made by a function of the user's own file, `my.py:build`.

The function takes nothing and returns a torch module of a known family (executor.adapted.family)
with the values that training starts from. Every rank calls it after the same seed.
"""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from planner.spec.documents import InputError

NAME = "meshwright_user_module"


def build(source: str, seed: int) -> nn.Module:
    """Call the function. Raises InputError where the file, the function or its result is wrong."""
    path, sign, name = source.rpartition(":")
    if not sign or not path or not name.isidentifier():
        raise InputError(f"--module {source}: write FILE.py:FUNCTION, such as my.py:build")
    function = getattr(_file(source, Path(path)), name, None)
    if not callable(function):
        raise InputError(f"--module {source}: {path} has no function {name}")
    torch.manual_seed(seed)
    with _blamed(source, Path(path)):
        module = function()
    if not isinstance(module, nn.Module):
        raise InputError(
            f"--module {source}: {name}() returned {type(module).__name__}, not a torch.nn.Module"
        )
    return module


def _file(source: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"--module {source}: there is no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    with _blamed(source, path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _blamed(source: str, path: Path) -> Iterator[None]:
    """What the user's code raises becomes an InputError that names its last line there."""
    try:
        yield
    except Exception as error:  # whatever the user's code raises
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        raise InputError(f"--module {source}: {where}: {type(error).__name__}: {error}") from error
